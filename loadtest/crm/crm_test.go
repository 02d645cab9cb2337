package crm_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/loadtest/crm"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quick() *crm.API {
	a := crm.New()
	a.Scale = 0.01
	return a
}

// call makes n calls at once, a record each, and returns how many failed how.
func call(t *testing.T, a *crm.API, ctx context.Context, n int) (overrun, late int) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range n {
		wg.Go(func() {
			err := a.Call(ctx, []probe.Mark{{Seq: uint64(i + 1), At: measure.Now()}})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, crm.ErrOverrun):
				overrun++
			case err != nil:
				late++
			}
		})
	}
	wg.Wait()
	a.Wait()
	return overrun, late
}

func TestWithinItsCapacity(t *testing.T) {
	a := quick()
	if overrun, late := call(t, a, t.Context(), crm.Capacity); overrun+late != 0 {
		t.Errorf("got %d refused, %d late", overrun, late)
	}
	if st := a.Stats(); st.Events != crm.Capacity || st.Next != crm.Capacity+1 || st.InFlight != 0 || st.Rejected != 0 {
		t.Errorf("got %+v", st)
	}
	if got := a.Lost(crm.Capacity + 3); got != 3 {
		t.Errorf("lost: got %d, want 3", got)
	}
}

func TestBeyondItsCeiling(t *testing.T) {
	a := quick()
	overrun, _ := call(t, a, t.Context(), crm.Ceiling+5)
	if overrun == 0 || a.Stats().Rejected != overrun || a.Stats().Peak > crm.Ceiling {
		t.Errorf("got %d refused, %+v", overrun, a.Stats())
	}
	if got := a.Lost(crm.Ceiling + 5); got != overrun {
		t.Errorf("lost: got %d, want %d", got, overrun)
	}
}

func TestGoesOnForThoseWhoGaveUp(t *testing.T) {
	a := quick()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, late := call(t, a, ctx, 3); late != 3 {
		t.Errorf("late: got %d, want 3", late)
	}
	if st := a.Stats(); st.TimedOut != 3 || st.Events != 3 {
		t.Errorf("got %+v, want 3 timed out and done", st)
	}
	if err := a.Call(t.Context(), []probe.Mark{{Seq: 2}}); err != nil || a.Stats().Duplicated != 1 {
		t.Errorf("the retry: got %+v, error %v, want a duplicate", a.Stats(), err)
	}
}

func TestEndpoint(t *testing.T) {
	a := quick()
	s, err := crm.Serve(a.Handler())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for body, want := range map[string]int{
		string(probe.AppendEvent(nil, "", probe.Mark{Seq: 1, At: 1}, 0)): http.StatusNoContent,
		`[{"data":{"seq":2,"at":1}},{"data":{"seq":3,"at":1}}]`:          http.StatusNoContent,
		`[{"data":{}}]`: http.StatusUnprocessableEntity,
		`[`:             http.StatusUnprocessableEntity,
		``:              http.StatusUnprocessableEntity,
	} {
		resp, err := client.Post(s.URL, "application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: got %d, want %d", body, resp.StatusCode, want)
		}
	}
	if st := a.Stats(); st.Events != 3 || st.Calls != 2 {
		t.Errorf("got %+v, want 3 events in 2 calls", st)
	}
}
