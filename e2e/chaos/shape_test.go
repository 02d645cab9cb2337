package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// records answers as the API of a CRM that takes many records in a call and says
// of each what became of it: now and then one is to come again.
type records struct {
	*receiver
	random func(n int) int
}

func newRecords(t testing.TB, book *oracle.Book, random func(n int) int) *receiver {
	r := &receiver{book: book}
	return r.serve(t, &records{r, random})
}

// shaped is a subscription's callback that calls r as its API wants to be called.
func shaped(r *receiver) map[string]any {
	return callback(r, map[string]any{
		"method": "PATCH", "order": "key", "concurrency": 4, "batch": map[string]any{"max_events": 10},
		"body":    `{"records": events.map(e, {"external_id": e.id, "kind": e.type, "owner": e.partitionkey, "place": e.cursor})}`,
		"outcome": `response.status == 200 ? dyn(response.body.map(r, r.saved ? "ack" : "retry")) : dyn("retry")`,
	})
}

func (r *records) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	var in struct {
		Records []struct {
			ID    string `json:"external_id"`
			Kind  string
			Owner string
			Place string
		}
	}
	if err := json.Unmarshal(body, &in); err != nil || q.Method != http.MethodPatch {
		r.book.Break("a shaped call: %s %v: %.100s", q.Method, err, body)
		return
	}
	if mode := r.mode.Load().(string); mode != "" {
		fail(w, q, mode)
		return
	}
	type saved struct {
		Saved bool `json:"saved"`
	}
	out := make([]saved, len(in.Records))
	for i, e := range in.Records {
		c, err := event.ParseCursor(e.Place)
		if err != nil {
			r.book.Break("a shaped call: %v", err)
			return
		}
		r.book.Given(oracle.Delivery{ID: e.ID, Type: e.Kind, Key: e.Owner, Cursor: c, By: "callback", Announced: announced(q)})
		if out[i].Saved = r.random(100) > 0; out[i].Saved {
			r.book.Done(e.ID)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		r.book.Break("%v", fmt.Errorf("answer a shaped call: %w", err))
	}
}
