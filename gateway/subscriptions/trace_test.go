package subscriptions_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
)

// entomb makes a dead letter of what the log of acct-42 has at an offset.
func (a *api) entomb(name string, offset uint64, reason string) {
	a.t.Helper()
	s, err := a.broker.Load(a.t.Context(), name)
	if err != nil {
		a.t.Fatal(err)
	}
	c, _ := s.Position.Of("acct-42")
	c.Offset = offset
	d := durable.DeadLetter{Event: []byte(fmt.Sprintf(`{"id":"e%d","cursor":%q,"type":"t"}`, offset, c)), Reason: reason, Time: time.Now()}
	l, err := d.Letter()
	if err == nil {
		_, err = a.broker.Bury(a.t.Context(), broker.Burial{Name: name, Generation: s.Generation, Letters: []broker.Letter{l}})
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// cursor is the one of acct-42 with an offset.
func (a *api) cursor(offset uint64) string {
	a.t.Helper()
	s, err := a.broker.State(a.t.Context(), "acct-42")
	if err != nil {
		a.t.Fatal(err)
	}
	return event.Cursor{Channel: "acct-42", Epoch: s.Epoch, Offset: offset}.String()
}

// What became of an event follows from position, jumps, log and letters.
func TestTrace(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	const crm = "/v1/subscriptions/crm-1"
	wantStates := func(story, want string) {
		t.Helper()
		var got []string
		for offset := range uint64(10) {
			out := a.want(200, me, "GET", crm+"/trace?cursor="+url.QueryEscape(a.cursor(offset+1)), "")
			got = append(got, fmt.Sprint(out["state"]))
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", story, got, want)
		}
	}
	a.append("acct-42", 2)
	a.want(201, me, "PUT", crm, `{"channels":["acct-42"],"types":["t"]}`)
	a.append("acct-42", 7)
	other := event.Fields{ID: "other", Source: "/s", Type: "u", Data: []byte(`1`)}
	if _, err := a.broker.Append(t.Context(), "acct-42", []broker.Entry{{Data: other.AppendStored(nil)}}); err != nil {
		t.Fatal(err)
	}
	a.want(200, me, "POST", crm+"/ack", `{"cursor":"`+a.cursor(4)+`"}`)
	wantStates("two were before the start, two are acknowledged",
		"skipped skipped acknowledged acknowledged waiting waiting waiting waiting waiting not_matched")
	a.want(200, me, "POST", crm+"/seek", `{"to":"`+a.cursor(6)+`"}`)
	a.entomb("crm-1", 3, "refused: answered 422")
	a.record("crm-1", time.Now(), 503, a.cursor(7))
	wantStates("two were skipped, one is dead, one was tried",
		"skipped skipped dead acknowledged skipped skipped in_flight waiting waiting not_matched")
	a.want(200, me, "POST", crm+"/seek", `{"to":"`+a.cursor(1)+`"}`)
	wantStates("all but the first come again",
		"skipped waiting dead waiting waiting waiting in_flight waiting waiting not_matched")

	out := a.want(200, me, "GET", crm+"/trace?cursor="+url.QueryEscape(a.cursor(3)), "")
	if out["reason"] != "refused: answered 422" || out["since"] == nil {
		t.Errorf("a dead letter: got %v, want its reason and time", out)
	}
	out = a.want(200, me, "GET", crm+"/trace?id=other", "")
	if out["cursor"] != a.cursor(10) || out["state"] != "not_matched" {
		t.Errorf("by id: got %v, want the event at %s", out, a.cursor(10))
	}
	if list := a.want(200, me, "GET", crm+"/trace?cursor="+url.QueryEscape(a.cursor(7)), "")["attempts"].([]any); len(list) != 1 {
		t.Errorf("got attempts %v, want the one", list)
	}

	for query, want := range map[string]int{
		"": 400, "id=x&cursor=" + a.cursor(1): 400, "cursor=acct-42": 400, "cursor=" + a.cursor(0): 400, "cursor=news.a@x-1": 400,
		"cursor=" + a.cursor(11): 410, "cursor=acct-42@gone-1": 410, "id=nobody's": 404,
	} {
		a.want(want, me, "GET", crm+"/trace?"+query, "")
	}
	a.want(403, token(t, auth.Mintage{Subscribe: []string{"news.**"}, Subscriptions: []string{"crm-*"}}), "GET", crm+"/trace?id=other", "")
}

// A resent event comes by the attached line, announced as a redriven letter is,
// and is no letter any more once it is acknowledged; the position stays.
func TestResend(t *testing.T) {
	a, me := newAPI(t), token(t, customer)
	const crm = "/v1/subscriptions/crm-1"
	a.want(201, me, "PUT", crm, `{"channels":["acct-42"],"types":["t"]}`)
	a.append("acct-42", 4)
	a.want(200, me, "POST", crm+"/ack", `{"cursor":"`+a.cursor(3)+`"}`)
	line := a.listen(a.streams(a.manager), me, "&ack=manual")
	line(`^data: .*"cursor":"(` + a.cursor(4) + `)"`)
	if out := a.want(200, me, "POST", crm+"/resend", `{"cursors":["`+a.cursor(2)+`","`+a.cursor(2)+`"]}`); out["resent"] != 1.0 {
		t.Errorf("got %v, want one resent", out)
	}
	line(`^data: .*"cursor":"(` + a.cursor(2) + `)"`)
	if out := a.want(200, me, "GET", crm+"/trace?cursor="+url.QueryEscape(a.cursor(2)), ""); out["state"] != "in_flight" {
		t.Errorf("got %v, want it in flight", out)
	}
	a.want(200, me, "POST", crm+"/ack", `{"cursor":"`+a.cursor(2)+`"}`)
	a.becomes("letters", func() any { return at(a.want(200, me, "GET", crm, ""), "status", "dead") }, 0.0)
	if out := a.want(200, me, "GET", crm, ""); out["cursor"] != a.cursor(3) {
		t.Errorf("the position is %v, want %s", out["cursor"], a.cursor(3))
	}

	for body, want := range map[string]int{
		`{}`: 400, `{"cursors":[]}`: 400, `{"cursors":["x"]}`: 400, `{"cursor":"x"}`: 400, `{"cursors":["news.a@x-1"]}`: 400,
		`{"cursors":["` + a.cursor(4) + `"]}`: 409, `{"cursors":["` + a.cursor(9) + `"]}`: 410,
		`{"cursors":[` + strings.Repeat(`"x",`, 100) + `"x"]}`: 400,
	} {
		a.want(want, me, "POST", crm+"/resend", body)
	}
}
