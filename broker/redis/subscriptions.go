package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

var _ broker.Durable = (*Broker)(nil)

// Load implements broker.Subscriptions.
func (b *Broker) Load(ctx context.Context, name string) (broker.Subscription, error) {
	verb := "load subscription " + name
	bucket := bucketOf(name)
	list, err := b.query(ctx, bucket, loadScript, b.loadKeys(bucket, name))
	if err != nil {
		return broker.Subscription{}, unavailable(verb, err)
	}
	if list == nil {
		return broker.Subscription{}, fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	}
	return subscriptionOf(name, list), nil
}

func (b *Broker) loadKeys(bucket int, name string) []string {
	order, _ := b.keys.letters(bucket, name)
	return []string{b.keys.subscription(bucket, name), b.keys.position(bucket, name), order, b.keys.redriven(bucket, name)}
}

// subscriptionOf reads what load.lua returns.
func subscriptionOf(name string, list []any) broker.Subscription {
	record, _ := list[1].(string)
	return broker.Subscription{
		Name: name, Version: uintOf(list[0]), Record: []byte(record),
		Dead: int(uintOf(list[2])), Redriving: int(uintOf(list[3])),
		Progress: standingOf(list[4:]),
	}
}

// standingOf reads the fields and values of a position.
func standingOf(list []any) broker.Progress {
	var s broker.Progress
	for i := 0; i+1 < len(list); i += 2 {
		channel, _ := list[i].(string)
		value, _ := list[i+1].(string)
		if channel == "" {
			s.Generation = uintOf(value)
			continue
		}
		epoch, offset, _ := strings.Cut(value, "-")
		s.Position = append(s.Position, event.Cursor{Channel: channel, Epoch: epoch, Offset: uintOf(offset)})
	}
	slices.SortFunc(s.Position, func(x, y event.Cursor) int { return strings.Compare(x.Channel, y.Channel) })
	return s
}

// unconfirmed is when a subscription that is to wait becomes due if whoever
// stores it dies before it waits.
const unconfirmed = 3 * time.Second

// Store implements broker.Subscriptions.
//
// The subscription's own bucket changes in one step. What concerns it in its
// channels' buckets is entered so that no moment and no crash loses anything:
// that it follows them before, that it waits for them after, while it is due
// soon in any case. What was entered for nothing is noticed by who finds it.
func (b *Broker) Store(ctx context.Context, u broker.Update) error {
	// Where replicas are waited for, also for who owns it: a failover that forgot
	// an owner would have the next one announce too little of what that delivered.
	u.Durable = true
	verb := "store subscription " + u.Name
	bucket := bucketOf(u.Name)
	channels := strings.Join(slices.Sorted(slices.Values(u.Channels)), ",")
	due := u.Due
	if len(u.Wait) > 0 {
		due = min(due, unconfirmed)
	}
	answer, err := b.store(ctx, bucket, u, channels, due, 0)
	for err == nil && answer[0] == "CHANNELS" {
		// Events are kept for it from before it follows them.
		version := uintOf(answer[2]) + broker.VersionStep()
		if err := b.mark(ctx, u, version, without(u.Channels, split(answer[1]))); err != nil {
			return unavailable(verb, err)
		}
		answer, err = b.store(ctx, bucket, u, channels, due, version)
	}
	if err != nil {
		return unavailable(verb, err)
	}
	if answer[0] != "OK" {
		return fmt.Errorf("%s: %w", verb, broker.ErrConflict)
	}
	version := uintOf(answer[3])
	if len(u.Wait) > 0 {
		if err := b.wait(ctx, bucket, u, version); err != nil {
			return unavailable(verb, err)
		}
	}
	waited := make([]string, len(u.Wait))
	for i, c := range u.Wait {
		waited[i] = c.Channel
	}
	b.unmark(ctx, u.Name, version, without(split(answer[1]), waited), without(split(answer[2]), u.Channels))
	b.unmarkParts(ctx, answer[4:])
	return nil
}

// store runs store.lua. version is what changed channels were marked with, 0 if
// they were not.
func (b *Broker) store(ctx context.Context, bucket int, u broker.Update, channels string, due time.Duration, version uint64) ([]string, error) {
	k := b.keys
	args := make([]any, 0, 14+2*len(u.Set)+len(u.Forget))
	args = append(args, u.Version, u.Name, u.Generation, u.Record, u.Node, channels, waits(u.Wait), millis(due),
		b.publish, k.dueTopic(bucket), broker.VersionStep(), version, parting(u), len(u.Set))
	for _, c := range u.Set {
		args = append(args, c.Channel, fmt.Sprintf("%s-%d", c.Epoch, c.Offset))
	}
	for _, channel := range u.Forget {
		args = append(args, channel)
	}
	keys := []string{
		k.subscription(bucket, u.Name), k.position(bucket, u.Name), k.subscriptions(bucket), k.due(bucket), k.owned(bucket),
		k.versions(bucket),
	}
	if u.Creator != "" && !broker.IsPartition(u.Name) {
		keys = append(keys, k.created(bucket, u.Creator))
	}
	list, err := b.doAs(ctx, u.Durable, bucket, storeScript, keys, args...)
	if err != nil {
		return nil, err
	}
	return texts(list)
}

func waits(p event.Position) string {
	channels := make([]string, len(p))
	for i, c := range p {
		channels[i] = c.Channel
	}
	return strings.Join(channels, ",")
}

// millis is a time from now as scripts take it; -1 is never.
func millis(d time.Duration) int64 {
	if d == broker.Never {
		return -1
	}
	return max(0, d.Milliseconds())
}

// texts takes an answer of strings.
func texts(list []any) ([]string, error) {
	s := make([]string, 0, 4)
	for _, v := range list {
		text, _ := v.(string)
		s = append(s, text)
	}
	if len(s) == 0 || (s[0] == "OK" || s[0] == "CHANNELS") && len(s) < 3 {
		return nil, errors.New("unexpected answer")
	}
	return s, nil
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// without returns what is in a but not in b.
func without(a, b []string) []string {
	var left []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			left = append(left, s)
		}
	}
	return left
}

// mark enters that u follows channels, from version on.
func (b *Broker) mark(ctx context.Context, u broker.Update, version uint64, channels []string) error {
	return b.doEach(ctx, len(channels), func(i int) *call {
		bucket := bucketOf(channels[i])
		return &call{bucket: bucket, script: markScript, keys: []string{b.keys.following(bucket, channels[i])},
			args: []any{u.Name, version}, durable: u.Durable}
	}, nil)
}

// wait has u wait for its channels; then, and only then, it is due no sooner
// than it says.
func (b *Broker) wait(ctx context.Context, own int, u broker.Update, version uint64) error {
	err := b.doEach(ctx, len(u.Wait), func(i int) *call {
		c := u.Wait[i]
		bucket := bucketOf(c.Channel)
		return &call{bucket: bucket, script: waitScript,
			keys: []string{b.keys.meta(bucket, c.Channel), b.keys.waiting(bucket), b.keys.due(bucket)},
			args: []any{c.Channel, u.Name, version, c.Epoch, c.Offset, b.publish, b.keys.dueTopic(bucket)}, durable: u.Durable}
	}, nil)
	if err != nil {
		return err
	}
	_, err = b.doAs(ctx, u.Durable, own, confirmScript, []string{b.keys.subscription(own, u.Name), b.keys.due(own)},
		version, u.Name, millis(u.Due))
	return err
}

// unmark takes a subscription from where version no longer belongs. If that
// fails, it is found to be there for nothing, later.
func (b *Broker) unmark(ctx context.Context, name string, version uint64, waited, followed []string) {
	channels := slices.Concat(waited, followed)
	err := b.doEach(ctx, len(channels), func(i int) *call {
		bucket := bucketOf(channels[i])
		if i < len(waited) {
			return &call{bucket: bucket, script: unwaitScript, keys: []string{b.keys.waiting(bucket)}, args: []any{name, version, channels[i]}}
		}
		return &call{bucket: bucket, script: unmarkScript, keys: []string{b.keys.following(bucket, channels[i])}, args: []any{name, version}}
	}, nil)
	if err != nil {
		b.log.Debug("tidy up after a subscription", "subscription", name, "error", err)
	}
}

// unmarkParts is unmark for what prune.lua tells of partitions that are gone.
func (b *Broker) unmarkParts(ctx context.Context, gone []string) {
	for ; len(gone) >= 3; gone = gone[3:] {
		b.unmark(ctx, gone[0], uintOf(gone[1]), nil, split(gone[2]))
	}
}

// parting says as store.lua takes it what becomes of the partitions.
func parting(u broker.Update) int {
	switch {
	case u.Undivided && u.Least:
		return 2
	case u.Undivided:
		return 1
	}
	return 0
}

// Delete implements broker.Subscriptions.
func (b *Broker) Delete(ctx context.Context, name string, version uint64) error {
	verb := "delete subscription " + name
	k, bucket := b.keys, bucketOf(name)
	order, letters := k.letters(bucket, name)
	list, err := b.doAs(ctx, true, bucket, deleteScript, []string{
		k.subscription(bucket, name), k.position(bucket, name), k.subscriptions(bucket), k.due(bucket), k.owned(bucket),
		order, letters, k.note(bucket, name), k.redriven(bucket, name), k.versions(bucket), k.attempts(bucket, name),
	}, version, name)
	if err != nil {
		return unavailable(verb, err)
	}
	answer, err := texts(list)
	if err != nil {
		return unavailable(verb, err)
	}
	switch answer[0] {
	case "GONE":
		return fmt.Errorf("%s: %w", verb, broker.ErrNotFound)
	case "CONFLICT":
		return fmt.Errorf("%s: %w", verb, broker.ErrConflict)
	}
	b.unmark(ctx, name, version, split(answer[1]), split(answer[2]))
	b.unmarkParts(ctx, answer[3:])
	return nil
}

// List implements broker.Subscriptions.
func (b *Broker) List(ctx context.Context, prefix, after string, limit int) ([]broker.Subscription, error) {
	const verb = "list subscriptions"
	page := []broker.Subscription{}
	for len(page) < limit { // what was deleted since it was named leaves room
		names, err := b.listNames(ctx, b.keys.subscriptions, prefix, after, limit)
		if err != nil {
			return nil, unavailable(verb, err)
		}
		last := len(names) < limit
		if len(names) > 0 {
			after = names[len(names)-1]
		}
		names = slices.DeleteFunc(names, broker.IsPartition)
		lists, err := b.queryEach(ctx, names, func(i, bucket int) question {
			return question{loadScript, b.loadKeys(bucket, names[i]), nil}
		})
		if err != nil {
			return nil, unavailable(verb, err)
		}
		for i, list := range lists {
			if len(list) >= 4 && len(page) < limit {
				page = append(page, subscriptionOf(names[i], list))
			}
		}
		if last {
			break
		}
	}
	return page, nil
}

// Advance implements broker.Subscriptions.
func (b *Broker) Advance(ctx context.Context, moves []broker.Move) ([]int, error) {
	fenced := make([]bool, len(moves))
	err := b.doEach(ctx, len(moves), func(i int) *call {
		m := moves[i]
		bucket := bucketOf(m.Name)
		args := append(make([]any, 0, 1+3*len(m.Position)), m.Generation)
		return &call{bucket: bucket, script: advanceScript, keys: []string{b.keys.position(bucket, m.Name)},
			args: appendCursors(args, m.Position), durable: true}
	}, func(i int, answer any) { fenced[i] = answer == int64(0) })
	if err != nil {
		return nil, unavailable("advance", err)
	}
	var indexes []int
	for i, f := range fenced {
		if f {
			indexes = append(indexes, i)
		}
	}
	return indexes, nil
}

func appendCursors(args []any, p event.Position) []any {
	for _, c := range p {
		args = append(args, c.Channel, c.Epoch, c.Offset)
	}
	return args
}

// Look implements broker.Subscriptions.
func (b *Broker) Look(ctx context.Context, names []string) ([]broker.Progress, error) {
	lists, err := b.queryEach(ctx, names, func(i, bucket int) question {
		return question{standingScript, []string{b.keys.position(bucket, names[i])}, nil}
	})
	if err != nil {
		return nil, unavailable("look at subscriptions", err)
	}
	progresses := make([]broker.Progress, len(names))
	for i, list := range lists {
		progresses[i] = standingOf(list)
	}
	return progresses, nil
}
