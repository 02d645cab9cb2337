package pull

import (
	"net/url"
	"strconv"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// What a pull may ask for.
const (
	defaultMax  = 100
	maxMax      = 1000
	defaultWait = 0
	maxWait     = 50 * time.Second // the server's write time-out is more
	defaultHold = 30 * time.Second
	maxHold     = time.Hour
	maxBytes    = 4 << 20
)

// request is what a pull asks for.
type request struct {
	name, consumer string
	max            int
	wait, hold     time.Duration
	ack            event.Position
	partition      int // of the acknowledgement; AllPartitions if it names none
}

func parse(q url.Values, name string, g *auth.Grant) (request, error) {
	r := request{name: name, consumer: q.Get("consumer"), max: defaultMax, wait: defaultWait, hold: defaultHold, partition: durable.AllPartitions}
	if r.consumer == "" {
		r.consumer = g.Subject
	}
	if len(r.consumer) > durable.MaxName {
		return r, wire.BadRequest("consumer has %d bytes; want %d at most", len(r.consumer), durable.MaxName)
	}
	var err error
	if text := q.Get("max"); text != "" {
		if r.max, err = strconv.Atoi(text); err != nil || r.max < 1 || r.max > maxMax {
			return r, wire.BadRequest("max is %.40q; want a number from 1 to %d", text, maxMax)
		}
	}
	for _, d := range []struct {
		field string
		into  *time.Duration
		most  time.Duration
	}{{"wait", &r.wait, maxWait}, {"hold", &r.hold, maxHold}} {
		if text := q.Get(d.field); text != "" {
			if *d.into, err = time.ParseDuration(text); err != nil || *d.into < 0 || *d.into > d.most {
				return r, wire.BadRequest("%s is %.40q; want a time from 0s to %v", d.field, text, d.most)
			}
		}
	}
	if r.ack, err = event.ParsePosition(q.Get("ack")); err != nil {
		return r, wire.BadRequest("ack: %v", err)
	}
	if text := q.Get("partition"); text != "" {
		if r.partition, err = strconv.Atoi(text); err != nil || r.partition < 0 || r.partition >= durable.MaxPartitions {
			return r, wire.BadRequest("partition is %.40q; want the number of one that the last answer named", text)
		}
		if len(r.ack) == 0 {
			return r, wire.BadRequest("partition says of which one ack is, and there is no ack")
		}
	}
	return r, nil
}
