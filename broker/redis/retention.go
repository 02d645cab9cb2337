package redis

import (
	"context"
	"errors"

	goredis "github.com/redis/go-redis/v9"
)

// trimPiece is how many events one script call removes at most, so that it
// doesn't hold up others for long.
const trimPiece = 20_000

// trimNowAndThen applies retention until ctx ends.
func (b *Broker) trimNowAndThen(ctx context.Context) {
	for sleep(ctx, jitter(b.options.TrimEvery)) {
		if err := b.Trim(ctx); err != nil {
			b.log.Debug("apply retention", "error", err)
		}
	}
}

// Trim applies retention to every channel now.
func (b *Broker) Trim(ctx context.Context) error {
	var errs []error
	for bucket := range buckets {
		names, err := b.bucketChannels(ctx, bucket)
		if err != nil {
			return unavailable("apply retention", err)
		}
		for _, name := range names {
			if err := b.trimChannel(ctx, bucket, name); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return unavailable("apply retention", err)
	}
	return nil
}

func (b *Broker) bucketChannels(ctx context.Context, bucket int) ([]string, error) {
	c := b.servers.bucket(bucket).client
	return c.ZRangeByLex(ctx, b.keys.names(bucket), &goredis.ZRangeBy{Min: "-", Max: "+"}).Result()
}

func (b *Broker) trimChannel(ctx context.Context, bucket int, channel string) error {
	r := b.options.Retention(channel)
	for {
		list, err := b.query(ctx, bucket, trimScript, []string{b.keys.meta(bucket, channel), b.keys.log(bucket, channel)},
			r.ReplayAge.Milliseconds(), r.ReplayEvents, r.MaxAge.Milliseconds(), r.MaxBytes, -1, trimPiece, b.clock())
		if err != nil {
			return err
		}
		if len(list) < 4 || uintOf(list[3]) == 0 {
			return nil
		}
	}
}
