package demo

import (
	"time"

	"github.com/longline-push/longline/loadtest/crm"
	"github.com/longline-push/longline/loadtest/measure"
)

// Account is a CRM's own, set against what happened: Processed, Waiting and
// Lost together are all events there are.
type Account struct {
	Processed int     `json:"processed"` // events, each once
	Waiting   int     `json:"waiting"`   // neither processed nor lost
	Lost      int     `json:"lost"`      // given up and never processed
	Twice     int     `json:"twice"`     // processed again
	Delay     float64 `json:"delay"`     // seconds until processed: the median of late
	Oldest    float64 `json:"oldest"`    // seconds: how long the oldest has been waiting
	Calls     int     `json:"calls"`
	Refused   int     `json:"refused"`   // calls, by the CRM that is overrun
	TimedOut  int     `json:"timed_out"` // calls whose caller gave up waiting
	InFlight  int     `json:"in_flight"` // calls
	Peak      int     `json:"peak"`      // most calls in flight
}

// side is one of the two ways into a CRM. One goroutine looks at it.
type side struct {
	api   *crm.API
	delay time.Duration
}

func newSide(scale float64) *side {
	s := &side{api: crm.New()}
	s.api.Scale = scale
	return s
}

// renew takes the delay of what was processed since it was last called; where
// that is nothing, the delay stays.
func (s *side) renew() {
	if h := s.api.Recent(); h.Count() > 0 {
		s.delay = h.Quantile(0.5)
	}
}

// account is how things are when there are so many events.
func (s *side) account(emitted uint64, c *campaign) Account {
	st := s.api.Stats()
	a := Account{
		Processed: st.Events, Waiting: max(0, int(emitted)-st.Events-st.Lost), Lost: st.Lost, Twice: st.Duplicated,
		Delay: s.delay.Seconds(), Calls: st.Calls, Refused: st.Rejected, TimedOut: st.TimedOut, InFlight: st.InFlight, Peak: st.Peak,
	}
	if at, ok := c.when(st.Next); ok && a.Waiting > 0 {
		a.Oldest = time.Duration(measure.Now() - at).Seconds()
	}
	return a
}
