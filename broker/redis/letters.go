package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
)

// Bury implements broker.DeadLetters.
func (b *Broker) Bury(ctx context.Context, burial broker.Burial) (int, error) {
	verb := "bury letters of " + burial.Name
	args := make([]any, 0, 5+3*len(burial.Position)+3*len(burial.Letters))
	args = append(args, burial.Generation, broker.MaxDeadLetters, broker.MaxDeadBytes,
		time.Now().Add(-broker.MaxDeadAge).UnixMilli(), len(burial.Position))
	args = appendCursors(args, burial.Position)
	for _, l := range burial.Letters {
		args = append(args, l.Cursor, l.Time.UnixMilli(), l.Data)
	}
	bucket := bucketOf(burial.Name)
	order, texts := b.keys.letters(bucket, burial.Name)
	list, err := b.doAs(ctx, true, bucket, buryScript, []string{
		b.keys.subscription(bucket, burial.Name), b.keys.position(bucket, burial.Name), order, texts,
		b.keys.redriven(bucket, burial.Name),
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
	list, err := b.query(ctx, bucket, deadScript, []string{order, texts, b.keys.redriven(bucket, name)}, after, limit)
	if err != nil {
		return nil, unavailable("read dead letters of "+name, err)
	}
	letters := make([]broker.Letter, 0, len(list)/4)
	for i := 0; i+3 < len(list); i += 4 {
		cursor, _ := list[i+1].(string)
		text, _ := list[i+2].(string)
		_, rest, _ := strings.Cut(text, " ")
		ms, data, _ := strings.Cut(rest, " ")
		at, _ := strconv.ParseInt(ms, 10, 64)
		letters = append(letters, broker.Letter{
			Seq: uintOf(list[i]), Cursor: cursor, Time: time.UnixMilli(at).UTC(), Data: []byte(data), Redrive: list[i+3] == int64(1),
		})
	}
	return letters, nil
}

// lettersPiece is how many letters one script call changes.
const lettersPiece = 500

// Redrive implements broker.DeadLetters.
func (b *Broker) Redrive(ctx context.Context, name string, cursors []string) (n int, err error) {
	verb := "redrive letters of " + name
	bucket := bucketOf(name)
	order, _ := b.keys.letters(bucket, name)
	keys := []string{order, b.keys.redriven(bucket, name)}
	if cursors == nil {
		n, err = b.redriveAll(ctx, bucket, keys)
	} else {
		n, err = b.eachPiece(ctx, bucket, redriveScript, keys, cursors)
	}
	if err != nil {
		return 0, unavailable(verb, err)
	}
	return n, nil
}

// redriveAll marks the letters that are there when it begins.
func (b *Broker) redriveAll(ctx context.Context, bucket int, keys []string) (n int, err error) {
	newest, err := b.servers.bucket(bucket).client.ZRevRangeWithScores(ctx, keys[0], 0, 0).Result()
	if err != nil || len(newest) == 0 {
		return 0, err
	}
	last := uint64(newest[0].Score)
	for after := uint64(0); after < last; {
		list, err := b.doAs(ctx, true, bucket, redriveAll, keys, after, last, lettersPiece)
		if err != nil {
			return n, err
		}
		if len(list) != 2 {
			return n, errors.New("unexpected answer")
		}
		n, after = n+count(list), uintOf(list[1])
	}
	return n, nil
}

// eachPiece runs a script on cursors, some at a time, and adds up what it returns.
func (b *Broker) eachPiece(ctx context.Context, bucket int, s *script, keys, cursors []string, before ...any) (n int, err error) {
	for some := range slices.Chunk(cursors, lettersPiece) {
		args := slices.Clone(before)
		for _, id := range some {
			args = append(args, id)
		}
		list, err := b.doAs(ctx, true, bucket, s, keys, args...)
		if err != nil {
			return n, err
		}
		n += count(list)
	}
	return n, nil
}

// Remove implements broker.DeadLetters.
func (b *Broker) Remove(ctx context.Context, name string, cursors []string) (n int, err error) {
	bucket := bucketOf(name)
	order, texts := b.keys.letters(bucket, name)
	keys := []string{b.keys.subscription(bucket, name), order, texts, b.keys.redriven(bucket, name)}
	if cursors == nil {
		var list []any
		list, err = b.doAs(ctx, true, bucket, removeScript, keys, "1")
		n = count(list)
	} else {
		n, err = b.eachPiece(ctx, bucket, removeScript, keys, cursors, "0")
	}
	if err != nil {
		return 0, unavailable("remove letters of "+name, err)
	}
	return n, nil
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
