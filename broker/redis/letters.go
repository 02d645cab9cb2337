package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
)

// Bury implements broker.DeadLetters.
func (b *Broker) Bury(ctx context.Context, burial broker.Burial) (int, error) {
	verb := "bury letters of " + burial.Name
	args := make([]any, 0, 4+3*len(burial.Position)+3*len(burial.Letters))
	args = append(args, burial.Generation, broker.MaxDeadLetters,
		time.Now().Add(-broker.MaxDeadAge).UnixMilli(), len(burial.Position))
	args = appendCursors(args, burial.Position)
	for _, l := range burial.Letters {
		args = append(args, l.ID, l.Time.UnixMilli(), l.Data)
	}
	bucket := bucketOf(burial.Name)
	order, texts := b.keys.letters(bucket, burial.Name)
	list, err := b.doAs(ctx, true, bucket, buryScript, []string{
		b.keys.subscription(bucket, burial.Name), b.keys.position(bucket, burial.Name), order, texts,
	}, args...)
	if err != nil {
		return 0, unavailable(verb, err)
	}
	n := count(list)
	if n < 0 {
		return 0, fmt.Errorf("%s: %w", verb, broker.ErrFenced)
	}
	return n, nil
}

// count is an answer that is a number.
func count(list []any) int {
	if len(list) == 0 {
		return 0
	}
	n, _ := list[0].(int64)
	return int(n)
}

// Dead implements broker.DeadLetters.
func (b *Broker) Dead(ctx context.Context, name string, after uint64, limit int) ([]broker.Letter, error) {
	bucket := bucketOf(name)
	order, texts := b.keys.letters(bucket, name)
	list, err := b.query(ctx, bucket, deadScript, []string{order, texts}, after, limit)
	if err != nil {
		return nil, unavailable("read dead letters of "+name, err)
	}
	letters := make([]broker.Letter, 0, len(list)/3)
	for i := 0; i+2 < len(list); i += 3 {
		id, _ := list[i+1].(string)
		text, _ := list[i+2].(string)
		mark, rest, _ := strings.Cut(text, " ")
		ms, data, _ := strings.Cut(rest, " ")
		at, _ := strconv.ParseInt(ms, 10, 64)
		letters = append(letters, broker.Letter{
			Seq: uintOf(list[i]), ID: id, Time: time.UnixMilli(at).UTC(), Data: []byte(data), Redrive: mark == "+",
		})
	}
	return letters, nil
}

// Redrive implements broker.DeadLetters.
func (b *Broker) Redrive(ctx context.Context, name string, ids []string) (int, error) {
	return b.letters(ctx, "redrive letters of "+name, redriveScript, name, ids)
}

// Remove implements broker.DeadLetters.
func (b *Broker) Remove(ctx context.Context, name string, ids []string) (int, error) {
	return b.letters(ctx, "remove letters of "+name, removeScript, name, ids)
}

func (b *Broker) letters(ctx context.Context, verb string, s *script, name string, ids []string) (int, error) {
	bucket := bucketOf(name)
	order, texts := b.keys.letters(bucket, name)
	args := []any{"0"}
	if ids == nil {
		args[0] = "1"
	}
	for _, id := range ids {
		args = append(args, id)
	}
	list, err := b.doAs(ctx, true, bucket, s, []string{b.keys.subscription(bucket, name), order, texts}, args...)
	if err != nil {
		return 0, unavailable(verb, err)
	}
	return count(list), nil
}

// SetNote implements broker.Notes.
func (b *Broker) SetNote(ctx context.Context, name string, generation uint64, note []byte) error {
	verb := "note on " + name
	bucket := bucketOf(name)
	list, err := b.do(ctx, bucket, noteScript, []string{b.keys.position(bucket, name), b.keys.note(bucket, name)}, generation, note)
	if err != nil {
		return unavailable(verb, err)
	}
	if count(list) == 0 {
		return fmt.Errorf("%s: %w", verb, broker.ErrFenced)
	}
	return nil
}

// Note implements broker.Notes.
func (b *Broker) Note(ctx context.Context, name string) ([]byte, error) {
	bucket := bucketOf(name)
	list, err := b.query(ctx, bucket, noteOfScript, []string{b.keys.note(bucket, name)})
	if err != nil {
		return nil, unavailable("read the note on "+name, err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	text, _ := list[0].(string)
	return []byte(text), nil
}
