package brokertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// far is when what would otherwise go by its age is from.
var far = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// FillGolden writes something of everything that is stored, for golden data:
// what one version stored so, later ones must read, see WantGolden. It returns
// the epoch of the log.
func FillGolden(t *testing.T, b Durable) (epoch string) {
	t.Helper()
	done, err := b.Append(t.Context(), "acct-1", []broker.Entry{{Data: []byte("one")}, {Identity: "/s\x00e2", Data: []byte("two")}, {Data: []byte("three")}})
	if err != nil {
		t.Fatal(err)
	}
	at := event.Position{{Channel: "acct-1", Epoch: done[1].Epoch, Offset: 2}}
	head := event.Position{{Channel: "acct-1", Epoch: done[1].Epoch, Offset: 3}}
	const never = 50 * 365 * 24 * time.Hour
	mustStore(t, b, broker.Update{Name: "crm", Generation: 7, Record: []byte(`{"channels":["acct-1"]}`), Set: at, Channels: []string{"acct-1"}, Creator: "ann", Node: "n1", Due: never})
	mustStore(t, b, broker.Update{Name: "parked", Generation: 1, Record: []byte(`{}`), Set: head, Channels: []string{"acct-1"}, Due: broker.Never, Wait: head})
	letter := func(cursor string) broker.Letter {
		return broker.Letter{Cursor: cursor, Time: far, Data: fmt.Appendf(nil, `{"event":{"cursor":%q}}`, cursor)}
	}
	if _, err := b.Bury(t.Context(), broker.Burial{Name: "crm", Generation: 7, Letters: []broker.Letter{letter("acct-1@x-1"), letter("acct-1@x-2")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Redrive(t.Context(), "crm", []string{"acct-1@x-2"}); err != nil {
		t.Fatal(err)
	}
	mustRecord(t, b, broker.Attempt{Name: "crm", Time: far, Data: []byte("tried")}, broker.Attempt{Name: "crm", Time: far, Data: []byte("tried again")})
	if err := b.SetNote(t.Context(), "crm", 7, []byte("note")); err != nil {
		t.Fatal(err)
	}
	return done[1].Epoch
}

// WantGolden finds what FillGolden wrote, and goes on from there.
func WantGolden(t *testing.T, b Durable) {
	t.Helper()
	page, err := b.Read(t.Context(), "acct-1", 0, broker.Limit{})
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for _, item := range page.Items {
		events = append(events, fmt.Sprintf("%d:%s", item.Offset, item.Data))
	}
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	want("events", strings.Join(events, " "), "1:one 2:two 3:three")
	describe := func(name string) string {
		s := mustLoad(t, b, name)
		c, _ := s.Position.Of("acct-1")
		return fmt.Sprintf("generation %d at %d: %s, %d dead, %d to come again", s.Generation, c.Offset, s.Record, s.Dead, s.Redriving)
	}
	want("crm", describe("crm"), `generation 7 at 2: {"channels":["acct-1"]}, 2 dead, 1 to come again`)
	want("parked", describe("parked"), `generation 1 at 3: {}, 0 dead, 0 to come again`)
	want("created by ann", strings.Join(mustCreated(t, b, "ann"), " "), "crm")
	owned, err := b.Owned(t.Context(), "n1", "", 10)
	if err != nil {
		t.Fatal(err)
	}
	want("owned by n1", strings.Join(owned, " "), "crm")
	letters, err := b.Dead(t.Context(), "crm", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	var dead []string
	for _, l := range letters {
		dead = append(dead, fmt.Sprintf("%s %v %s %v", l.Cursor, l.Time.Year(), l.Data, l.Redrive))
	}
	want("letters", strings.Join(dead, "; "), `acct-1@x-1 2100 {"event":{"cursor":"acct-1@x-1"}} false; acct-1@x-2 2100 {"event":{"cursor":"acct-1@x-2"}} true`)
	wantAttempts(t, b, "crm", 0, 10, "2:tried again 1:tried")
	note, err := b.Note(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	want("note", string(note), "note")

	done, err := b.Append(t.Context(), "acct-1", []broker.Entry{{Data: []byte("four")}})
	if err != nil || done[0].Offset != 4 {
		t.Fatalf("the next event: %+v, %v; want offset 4", done, err)
	}
	mustDue(t, b, time.Hour, "parked") // which it woke
	fenced, err := b.Advance(t.Context(), []broker.Move{{Name: "crm", Generation: 7, Position: event.Position{{Channel: "acct-1", Epoch: done[0].Epoch, Offset: 4}}, Durable: true}})
	if err != nil || len(fenced) > 0 {
		t.Errorf("advance: %v, %v", fenced, err)
	}
	if list, err := b.List(t.Context(), "", "", 10); err != nil || !slices.EqualFunc(list, []string{"crm", "parked"}, func(s broker.Subscription, name string) bool { return s.Name == name }) {
		t.Errorf("listed: %v, %v", list, err)
	}
	mustDelete(t, b, "crm")
	want("created by ann, once it is gone", strings.Join(mustCreated(t, b, "ann"), " "), "")
}
