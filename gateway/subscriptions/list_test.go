package subscriptions_test

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/subscriptions"
)

var manyOthers = flag.Int("others", 1000, "subscriptions of others that TestListingCostsWhatIsSeen makes")

// counting counts the subscriptions that were read.
type counting struct {
	subscriptions.Broker
	read *atomic.Int64
}

func (c counting) List(ctx context.Context, prefix, after string, limit int) ([]broker.Subscription, error) {
	page, err := c.Broker.List(ctx, prefix, after, limit)
	c.read.Add(int64(len(page)))
	return page, err
}

// TestListingCostsWhatIsSeen: a tenant among many pays for his own.
func TestListingCostsWhatIsSeen(t *testing.T) { onBoth(t, listingCostsWhatIsSeen) }

func listingCostsWhatIsSeen(t *testing.T, plain *api) {
	var read atomic.Int64
	a := newAPIOn(t, counting{plain.broker, &read}, nil)
	all := token(t, auth.Mintage{Admin: true})
	a.want(201, all, "PUT", "/v1/subscriptions/acct-42.a", `{"channels":["acct-42"]}`)
	made, err := a.broker.Load(t.Context(), "acct-42.a")
	if err != nil {
		t.Fatal(err)
	}
	store := func(name string) {
		t.Helper()
		u := broker.Update{Name: name, Generation: 1, Record: made.Record, Channels: []string{"acct-42"}, Due: broker.Never,
			Set: event.Position(made.Position)}
		if err := a.broker.Store(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	for i := range *manyOthers {
		store(fmt.Sprintf("acct-%d.crm", 1000+i))
	}
	for _, name := range []string{"acct-42.b", "acct-42.c", "acct-421.x", "acct-4", "acct-42.c~r-0", "billing", "billing~r-1", "billing2", "zz"} {
		store(name)
	}
	// walk lists by pages of limit, and wants each once.
	walk := func(token, query string, limit, most int, want ...string) {
		t.Helper()
		read.Store(0)
		var got []string
		for cursor := ""; ; {
			out := a.want(200, token, "GET", fmt.Sprintf("/v1/subscriptions?limit=%d&cursor=%s&%s", limit, url.QueryEscape(cursor), query), "")
			page := out["subscriptions"].([]any)
			for _, one := range page {
				got = append(got, at(one.(map[string]any), "name").(string))
			}
			next, more := out["next"].(string)
			if !more {
				break
			}
			if len(page) != limit || next != got[len(got)-1] {
				t.Fatalf("a page of %d, next %q, after %v", len(page), next, got)
			}
			cursor = next
		}
		slices.Sort(got)
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("?%s: got %v, want %v", query, got, want)
		}
		if n := int(read.Load()); n > most {
			t.Errorf("?%s: %d subscriptions were read for %d, want %d at most", query, n, len(got), most)
		}
	}
	tenant := func(names ...string) string {
		return token(t, auth.Mintage{Subscribe: []string{"**"}, Subscriptions: names})
	}
	for _, limit := range []int{1, 2, 100} {
		walk(tenant("acct-42.*"), "", limit, 12, "acct-42.a", "acct-42.b", "acct-42.c", "acct-42.c~r-0")
		walk(tenant("billing"), "", limit, 4, "billing", "billing~r-1")
		walk(tenant("zz", "acct-42.*", "acct-42.b*", "acct-42.a", "nothing", "billing"), "", limit, 20,
			"acct-42.a", "acct-42.b", "acct-42.c", "acct-42.c~r-0", "billing", "billing~r-1", "zz")
		walk(tenant("acct-42*x"), "", limit, 40, "acct-421.x")
	}
	walk(tenant("acct-42.*", "zz"), "prefix=acct-42.c", 1, 6, "acct-42.c", "acct-42.c~r-0")
	walk(tenant("*"), "prefix=zz", 1, 2, "zz")
	walk(tenant("acct-42.*"), "prefix=acct-1", 1, 0)
	walk(tenant(), "", 1, 0)
	walk(all, "prefix=billing", 2, 10, "billing", "billing2", "billing~r-1")
	if out := a.want(200, all, "GET", "/v1/subscriptions?limit=1000", ""); len(out["subscriptions"].([]any)) != min(1000, *manyOthers+10) {
		t.Errorf("an admin sees %d", len(out["subscriptions"].([]any)))
	}
}
