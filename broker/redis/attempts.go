package redis

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
)

// recordPiece bounds the bytes of attempts that one script call adds.
const recordPiece = 256 << 10

// Record implements broker.Attempts.
func (b *Broker) Record(ctx context.Context, attempts []broker.Attempt) error {
	pieces := make(map[string][]any) // arguments, by subscription
	var calls []*call
	now := time.Now()
	flush := func(name string) {
		bucket := bucketOf(name)
		args := append([]any{broker.MaxAttempts, broker.MaxAttemptBytes, now.Add(-broker.MaxAttemptAge).UnixMilli(), broker.MaxAttemptAge.Milliseconds()}, pieces[name]...)
		calls = append(calls, &call{bucket: bucket, script: recordScript,
			keys: []string{b.keys.subscription(bucket, name), b.keys.attempts(bucket, name)}, args: args})
		delete(pieces, name)
	}
	bytes := make(map[string]int)
	for _, a := range attempts {
		pieces[a.Name] = append(pieces[a.Name], a.Time.UnixMilli(), a.Data)
		if bytes[a.Name] += len(a.Data); bytes[a.Name] > recordPiece {
			flush(a.Name)
			bytes[a.Name] = 0
		}
	}
	for name := range pieces {
		flush(name)
	}
	err := b.doEach(ctx, len(calls), func(i int) *call { return calls[i] }, nil)
	if err != nil {
		return unavailable("record attempts", err)
	}
	return nil
}

// Attempts implements broker.Attempts.
func (b *Broker) Attempts(ctx context.Context, name string, before uint64, limit int) ([]broker.Attempt, error) {
	bucket := bucketOf(name)
	answer, err := b.query(ctx, bucket, attemptsScript, []string{b.keys.subscription(bucket, name), b.keys.attempts(bucket, name)}, before, limit)
	if err != nil {
		return nil, unavailable("read attempts of "+name, err)
	}
	if len(answer) < 2 {
		return nil, nil
	}
	last := uintOf(answer[0])
	stored := listOf(answer[1])
	old := time.Now().Add(-broker.MaxAttemptAge)
	list := make([]broker.Attempt, 0, len(stored))
	for i, v := range slices.Backward(stored) {
		text, _ := v.(string)
		ms, data, _ := strings.Cut(text, " ")
		at, _ := strconv.ParseInt(ms, 10, 64)
		a := broker.Attempt{Name: name, Seq: last - uint64(len(stored)-1-i), Time: time.UnixMilli(at).UTC(), Data: []byte(data)}
		if a.Time.Before(old) {
			break
		}
		list = append(list, a)
	}
	return list, nil
}
