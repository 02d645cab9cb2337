package session_test

import (
	"net/url"
	"testing"

	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

func FuzzLastEventID(f *testing.F) {
	for _, s := range []string{"", "latest", "earliest", "a@e1-7,b.c@e2-0", "2026-11-22T13:31:00.123Z", "a@e-18446744073709551616", "@", ",", "a@e1-1,a@e1-2"} {
		f.Add(s, "channel=a&since="+s)
	}
	f.Fuzz(func(t *testing.T, header, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		c, err := session.FromQuery(q, header, nil, nil)
		if err == nil {
			err = c.Since.Check(c.Channels)
		}
		if err != nil && wire.From(err).Code != wire.CodeBadRequest {
			t.Errorf("%q, %q: %v", header, query, err)
		}
	})
}
