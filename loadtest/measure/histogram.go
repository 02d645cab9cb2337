package measure

import (
	"encoding/json"
	"fmt"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Histogram counts latencies between 1 µs and 10 minutes to three digits. It
// travels and is kept whole (HdrHistogram's compressed V2 form), so that kept
// results can be merged and reported anew. It isn't safe for concurrent use.
type Histogram struct{ h *hdr.Histogram }

const longest = 10 * time.Minute

// NewHistogram returns an empty one.
func NewHistogram() *Histogram {
	return &Histogram{hdr.New(1, longest.Microseconds(), 3)}
}

// Record counts one latency; what lies outside the range counts as its end.
func (h *Histogram) Record(d time.Duration) {
	us := min(max(d.Microseconds(), 1), longest.Microseconds())
	_ = h.h.RecordValue(us) // in range by the line above
}

// Merge adds another's counts; nil adds nothing.
func (h *Histogram) Merge(o *Histogram) {
	if o != nil {
		h.h.Merge(o.h)
	}
}

// Reset forgets all counts.
func (h *Histogram) Reset() { h.h.Reset() }

// Count is how many latencies were recorded.
func (h *Histogram) Count() int64 { return h.h.TotalCount() }

// Quantile returns the latency that the share q (0 to 1) doesn't exceed.
func (h *Histogram) Quantile(q float64) time.Duration {
	return time.Duration(h.h.ValueAtQuantile(100*q)) * time.Microsecond
}

// Max is the longest latency.
func (h *Histogram) Max() time.Duration { return time.Duration(h.h.Max()) * time.Microsecond }

// MarshalJSON keeps the histogram as a string, its compressed form.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	b, err := h.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return json.Marshal(string(b))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Histogram) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("read histogram: %w", err)
	}
	return h.UnmarshalBinary([]byte(s))
}

// MarshalBinary is what gob sends between the tester's processes.
func (h *Histogram) MarshalBinary() ([]byte, error) {
	b, err := h.h.Encode(hdr.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("encode histogram: %w", err)
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (h *Histogram) UnmarshalBinary(b []byte) error {
	d, err := hdr.Decode(b)
	if err != nil {
		return fmt.Errorf("decode histogram: %w", err)
	}
	h.h = d
	return nil
}
