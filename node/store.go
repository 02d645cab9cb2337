package node

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
)

// store says where the logs are: one of the two.
type store struct {
	embedded *embedded.Options // nil: on Redis
	redis    string            // its URL
}

// parseStore reads the broker option.
func parseStore(text string) (store, error) {
	switch scheme, _, _ := strings.Cut(text, ":"); scheme {
	case "embedded":
		o, err := embeddedOptions(text)
		if err != nil {
			return store{}, wrong("broker", "%w", err)
		}
		return store{embedded: o}, nil
	case "redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster":
		return store{redis: text}, nil
	default:
		return store{}, wrong("broker", "%q; want embedded:DIR, redis://…, rediss://…, redis+sentinel://… or redis+cluster://…", scheme)
	}
}

// embeddedOptions reads embedded:DIR[?fsync=always|everysec].
func embeddedOptions(text string) (*embedded.Options, error) {
	dir, query, _ := strings.Cut(strings.TrimPrefix(text, "embedded:"), "?")
	if dir == "" {
		return nil, errors.New("no directory; want embedded:DIR")
	}
	o := &embedded.Options{Dir: dir}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%q; want ?fsync=always or ?fsync=everysec", query)
	}
	for key, value := range values {
		switch {
		case key == "fsync" && len(value) == 1 && value[0] == "always":
			o.Fsync = embedded.FsyncAlways
		case key == "fsync" && len(value) == 1 && value[0] == "everysec":
			o.Fsync = embedded.FsyncEverySecond
		default:
			return nil, fmt.Errorf("%s=%s; want fsync=always or fsync=everysec", key, strings.Join(value, ","))
		}
	}
	return o, nil
}

// openBroker opens the broker, which r gathers the metrics of.
func (o *Options) openBroker(ctx context.Context, s store, r prometheus.Registerer) (gateway.Broker, error) {
	options := broker.Options{
		Retention: o.retentionOf, MaxTotalBytes: o.MaxTotalBytes, DedupeWindow: o.DedupeWindow,
	}
	if e := s.embedded; e != nil {
		e.Options, e.Logger = options, o.Logger
		measureDisk(e, r)
		b, err := embedded.Open(*e)
		if err != nil {
			return nil, fmt.Errorf("open the data in %s: %w", e.Dir, err)
		}
		return b, nil
	}
	on := redis.Options{Options: options, Logger: o.Logger}
	measureRoundTrips(&on, r)
	b, err := redis.Open(ctx, s.redis, on)
	if err != nil {
		return nil, wrong("broker", "%w", err)
	}
	r.MustRegister(pool{b})
	return b, nil
}

// Channels of the gateway's own are not the configuration's business.
var ownRetention = map[string]broker.Retention{
	auth.RevocationChannel: {ReplayAge: forGood, ReplayEvents: 1, MaxAge: forGood, MaxBytes: 1 << 40},
	sealedChannel:          {ReplayAge: forGood, ReplayEvents: 1, MaxAge: forGood, MaxBytes: 1 << 20},
	gateway.NodesChannel:   {ReplayAge: time.Minute, ReplayEvents: 16, MaxAge: time.Minute, MaxBytes: 1 << 20},
}

// forGood is longer than any token is valid.
const forGood = 100 * 365 * 24 * time.Hour

// retentionOf is broker.Options.Retention.
func (o *Options) retentionOf(channel string) broker.Retention {
	if r, ok := ownRetention[channel]; ok {
		return r
	}
	if o.Retention != nil {
		return o.Retention(channel)
	}
	return broker.DefaultRetention
}

// Formats are the versions of what each broker stores, for people.
func Formats() string {
	return fmt.Sprintf("embedded %d, redis %d", embedded.Format, redis.Format)
}
