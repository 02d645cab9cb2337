package subscriptions_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/subscriptions"
)

// replayed starts a replay of crm-1 and returns its path.
func (a *api) replayed(token, body string) (path string) {
	a.t.Helper()
	out := a.want(201, token, "POST", "/v1/subscriptions/crm-1/replay", body)
	name, _ := out["name"].(string)
	if !strings.HasPrefix(name, "crm-1~r-") {
		a.t.Fatalf("got %v, want the name of a replay", out)
	}
	return "/v1/subscriptions/" + name
}

// gone waits until a replay has ended.
func (a *api) gone(token, path string) {
	a.t.Helper()
	a.becomes(path, func() any { status, _ := a.call(token, "GET", path, ""); return status }, 404)
}

// A replay by an attached line delivers its range, events appended since left
// out, says what it is, and ends once its last event is acknowledged. The
// subscription stays where it is.
func TestReplayAttached(t *testing.T) { onBoth(t, replayAttached) }

func replayAttached(t *testing.T, a *api) {
	me := token(t, customer)
	const crm = "/v1/subscriptions/crm-1"
	a.want(201, me, "PUT", crm, `{"channels":["acct-42","news.a"],"types":["t"],"group":{"partitions":2}}`)
	a.append("acct-42", 10)
	before := a.want(200, me, "GET", crm, "")["cursor"]
	path := a.replayed(me, fmt.Sprintf(`{"from":%q,"to":%q}`, a.cursor(3), a.cursor(6)))
	out := a.want(200, me, "GET", path, "")
	if at(out, "replay", "of") != "crm-1" || at(out, "replay", "to") != a.cursor(6) || at(out, "status", "lag", "events") != 3.0 || out["group"] != nil || out["cursor"] != a.cursor(3) {
		t.Errorf("got %v, want a replay of three events, of one channel, and nobody's group", out)
	}
	if list, _ := a.want(200, me, "GET", "/v1/subscriptions?prefix=crm-1", "")["subscriptions"].([]any); len(list) != 2 {
		t.Errorf("got %v, want the subscription and its replay", list)
	}
	line := a.listenTo(strings.TrimPrefix(path, "/v1/subscriptions/"), a.streams(a.manager), me, "&ack=manual")
	line(`"replay":(true)`)
	for offset := uint64(4); offset <= 6; offset++ {
		line(`^data: .*"cursor":"(` + a.cursor(offset) + `)"`)
	}
	a.append("acct-42", 1)
	a.want(200, me, "POST", path+"/ack", `{"cursor":"`+a.cursor(6)+`"}`)
	line(`^data: \{"code":1000,.*"reason":"the replay is complete[^"]*","reconnect":(false)`)
	a.gone(me, path)
	if got := a.want(200, me, "GET", crm, "")["cursor"]; got != before {
		t.Errorf("the subscription's position is %v, want %v as before", got, before)
	}
}

// What the filter leaves out at the end is no reason to wait for it, and neither
// is a range that is gone: that is told, and then it ends.
func TestReplayEndsWithoutAnEvent(t *testing.T) { onBoth(t, replayEndsWithoutAnEvent) }

func replayEndsWithoutAnEvent(t *testing.T, a *api) {
	me := token(t, customer)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`)
	a.append("acct-42", 4)
	streams := a.streams(a.manager)
	path := a.replayed(me, `{"from":"earliest","filter":"event.id == 'e1'"}`)
	pulled := a.want(200, me, "GET", path, "")
	if pulled["filter"] != "event.id == 'e1'" {
		t.Errorf("got %v, want the filter that was given", pulled)
	}
	line := a.listenTo(strings.TrimPrefix(path, "/v1/subscriptions/"), streams, me, "&ack=manual")
	line(`^data: .*"cursor":"(` + a.cursor(2) + `)"`)
	a.want(200, me, "POST", path+"/ack", `{"cursor":"`+a.cursor(2)+`"}`)
	line(`"reason":"(the replay is complete)`)
	a.gone(me, path)

	path = a.replayed(me, fmt.Sprintf(`{"from":"earliest","to":%q}`, a.cursor(3)))
	if err := a.broker.Drop(t.Context(), "acct-42"); err != nil {
		t.Fatal(err)
	}
	a.append("acct-42", 3)
	line = a.listenTo(strings.TrimPrefix(path, "/v1/subscriptions/"), streams, me, "&ack=manual")
	line(`^event: longline\.(gap)`)
	line(`"reason":"(reset)"`)
	line(`"reason":"(the replay is complete)`)
	a.gone(me, path)
}

// deliver has what is due called back by the API's node.
func (a *api) deliver() { a.deliverBy(a.manager, a.broker) }

// deliverBy has what is due called back by the node of manager. crash ends all
// that at once, nothing more being committed.
func (a *api) deliverBy(manager *durable.Manager, b subscriptions.Broker) (crash func()) {
	a.t.Helper()
	vault := a.vault
	feeds := feed.New(feed.Options{Broker: b}, feed.NewReady())
	ctx, cancel := context.WithCancel(context.Background())
	history := callback.NewHistory(b, slog.New(slog.DiscardHandler), nil)
	engine := callback.New(callback.Options{Dialing: callback.Dialing{Loopback: true}, History: history, Linger: 50 * time.Millisecond})
	d := callback.NewDispatcher(callback.DispatcherOptions{
		Manager: manager, Schedule: b, Feeds: feeds, Engine: engine,
		Private: func(s durable.State) (callback.Private, error) {
			p, err := vault.Open(s.Name, s.Sealed)
			return callback.Private{Headers: p.Headers}, err
		},
	})
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	running.Go(func() { history.Run(ctx) })
	a.t.Cleanup(func() {
		cancel()
		engine.Close(context.Background())
		running.Wait()
		feeds.Close()
	})
	return func() {
		cancel()
		engine.Halt()
	}
}

// A replay by callback calls the same endpoint, says so in a header, and leaves
// its dead letters and its attempts to the subscription when it ends.
func TestReplayByCallback(t *testing.T) { onBoth(t, replayByCallback) }

func replayByCallback(t *testing.T, a *api) {
	me := token(t, customer)
	a.deliver()
	var mu sync.Mutex
	var got []string
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch []struct{ ID string }
		json.NewDecoder(r.Body).Decode(&batch)
		mu.Lock()
		defer mu.Unlock()
		for _, e := range batch {
			got = append(got, fmt.Sprintf("%s%s/%s", r.Header.Get("Longline-Replay"), r.Header.Get("X-Tenant"), e.ID))
		}
		io.WriteString(w, `{"rejected":["e2"]}`)
	}))
	t.Cleanup(receiver.Close)
	const crm = "/v1/subscriptions/crm-1"
	a.append("acct-42", 5)
	a.want(201, me, "PUT", crm, fmt.Sprintf(`{"channels":["acct-42"],"types":["t"],"callback":{"url":%q,"headers":{"X-Tenant":"42"},"rate":100,
		"batch":{"max_events":10},"order":"key","concurrency":8}}`, receiver.URL))
	path := a.replayed(me, fmt.Sprintf(`{"from":%q,"to":"latest","callback":true}`, a.cursor(1)))
	a.gone(me, path)
	mu.Lock()
	slices.Sort(got)
	if want := "crm-142/e1 crm-142/e2 crm-142/e3 crm-142/e4"; strings.Join(got, " ") != want {
		t.Errorf("the endpoint got %v, want %s", got, want)
	}
	mu.Unlock()
	list, _ := a.want(200, me, "GET", crm+"/dead", "")["dead"].([]any)
	if len(list) != 1 || at(list[0].(map[string]any), "event", "id") != "e2" {
		t.Errorf("the subscription's dead letters are %v, want that of e2", list)
	}
	tried := func() any {
		out := a.want(200, me, "GET", crm+"/attempts?cursor="+url.QueryEscape(a.cursor(2)), "")
		list, _ := out["attempts"].([]any)
		if len(list) != 1 {
			return list
		}
		return at(list[0].(map[string]any), "replay")
	}
	a.becomes("the subscription's attempts", tried, strings.TrimPrefix(path, "/v1/subscriptions/"))
	a.becomes("trace", func() any {
		return a.want(200, me, "GET", crm+"/trace?cursor="+url.QueryEscape(a.cursor(2)), "")["state"]
	}, "skipped")
}

// A replay is slower than what it replays, unless it is told how fast to be.
func TestReplayLeavesRoom(t *testing.T) { onBoth(t, replayLeavesRoom) }

func replayLeavesRoom(t *testing.T, a *api) {
	me := token(t, customer)
	a.append("acct-42", 2)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"],"callback":{"url":"http://127.0.0.1:1/","rate":10,"order":"key","concurrency":8}}`)
	for body, want := range map[string]float64{`{"from":"earliest","callback":true}`: 5, `{"from":"earliest","callback":true,"rate":2}`: 2} {
		out := a.want(200, me, "GET", a.replayed(me, body), "")
		if at(out, "callback", "rate") != want || at(out, "callback", "concurrency") != 4.0 || at(out, "callback", "mode") != "always" {
			t.Errorf("%s: got %v, want a rate of %v and half the calls at once", body, out["callback"], want)
		}
	}
}

// Replays go with their subscription.
func TestReplaysAreDeletedAlong(t *testing.T) { onBoth(t, replaysAreDeletedAlong) }

func replaysAreDeletedAlong(t *testing.T, a *api) {
	me := token(t, customer)
	a.append("acct-42", 2)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-1", `{"channels":["acct-42"]}`)
	a.want(201, me, "PUT", "/v1/subscriptions/crm-12", `{"channels":["acct-42"]}`)
	for range 3 {
		a.replayed(me, `{"from":"earliest"}`)
	}
	path := a.replayed(me, `{"from":"earliest"}`)
	a.want(200, me, "POST", path+"/pause", "")
	a.want(200, me, "POST", path+"/resume", "")
	a.want(204, me, "DELETE", path, "")
	a.want(204, me, "DELETE", "/v1/subscriptions/crm-1", "")
	if list, _ := a.want(200, me, "GET", "/v1/subscriptions", "")["subscriptions"].([]any); len(list) != 1 || at(list[0].(map[string]any), "name") != "crm-12" {
		t.Errorf("got %v, want crm-12 alone", list)
	}
}

func TestReplaysThatAreRefused(t *testing.T) { onBoth(t, replaysThatAreRefused) }

func replaysThatAreRefused(t *testing.T, a *api) {
	me := token(t, customer)
	const crm = "/v1/subscriptions/crm-1"
	a.append("acct-42", 4)
	a.append("news.b", 1)
	a.want(201, me, "PUT", crm, `{"channels":["acct-42"]}`)
	news, err := a.broker.State(t.Context(), "news.b")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		body, want string
		status     int
	}{
		{`{}`, "from is empty", 400},
		{`{"from":"yesterday"}`, `from: "yesterday" is not a place`, 400},
		{`{"from":"earliest","to":""}`, "to is empty", 400},
		{`{"from":"earliest","to":"x@"}`, "to: ", 400},
		{fmt.Sprintf(`{"from":%q,"to":%q}`, a.cursor(3), a.cursor(1)), "from lies behind to", 400},
		{`{"from":"latest","to":"earliest"}`, "from lies behind to", 400},
		{`{"from":"latest"}`, "there is no event after from", 400},
		{`{"from":"2020-01-01T00:00:00Z","to":"2020-01-02T00:00:00Z"}`, "there is no event after from", 400},
		{fmt.Sprintf(`{"from":"news.b@%s-0"}`, news.Epoch), "which is not of subscription", 400},
		{`{"from":"acct-42@gone-3"}`, "is of a log that is gone", 410},
		{`{"from":"earliest","to":"` + a.cursor(9) + `"}`, "beyond the head", 410},
		{`{"from":"earliest","filter":"event."}`, "filter: line 1", 400},
		{`{"from":"earliest","types":["a,b"]}`, "types[0]", 400},
		{`{"from":"earliest","callback":true}`, "has no callback to replay by", 409},
		{`{"from":"earliest","rate":3}`, "rate is for a replay by callback", 400},
		{`{"from":"earliest","group":{"partitions":2}}`, `unknown field "group"`, 400},
	} {
		if out := a.want(c.status, me, "POST", crm+"/replay", c.body); !strings.Contains(fmt.Sprint(out["detail"]), c.want) {
			t.Errorf("%s: got %v, want %q", c.body, out["detail"], c.want)
		}
	}
	path := a.replayed(me, `{"from":"earliest"}`)
	for _, c := range [][3]string{
		{"POST", path + "/replay", `{"from":"earliest"}`},
		{"POST", path + "/seek", `{"to":"latest"}`},
		{"PUT", path, `{"channels":["acct-42"]}`},
		{"PATCH", path, `{"window":3}`},
		{"PUT", crm + "~r-mine", `{"channels":["acct-42"]}`},
	} {
		a.want(409, me, c[0], c[1], c[2])
	}
	a.want(400, me, "PUT", crm+"~mine", `{"channels":["acct-42"]}`)
	a.want(400, me, "GET", crm+"~r-"+url.PathEscape("a/0"), "")
	a.want(400, me, "PUT", crm, `{"channels":["acct-42"],"replay":{"of":"crm-1"}}`)

	// Who may use the subscription may use its replays, and nobody else.
	other := token(t, auth.Mintage{Subscribe: []string{"acct-42"}, Subscriptions: []string{"crm-2", "*~r-*"}})
	same := token(t, auth.Mintage{Subscribe: []string{"acct-42"}, Subscriptions: []string{"crm-1"}})
	a.want(403, other, "GET", path, "")
	a.want(403, other, "POST", crm+"/replay", `{"from":"earliest"}`)
	a.want(403, token(t, auth.Mintage{Subscriptions: []string{"crm-*"}}), "POST", crm+"/replay", `{"from":"earliest"}`)
	a.want(200, same, "GET", path, "")
	for range 15 {
		a.replayed(same, `{"from":"earliest"}`)
	}
	if out := a.want(409, me, "POST", crm+"/replay", `{"from":"earliest"}`); !strings.Contains(fmt.Sprint(out["detail"]), "being replayed 16 times") {
		t.Errorf("got %v, want that these are enough", out)
	}
	if _, err := event.ParsePosition(fmt.Sprint(at(a.want(200, me, "GET", path, ""), "replay", "from"))); err != nil {
		t.Error(err)
	}
}
