// Package probe makes the events that the load tester publishes and finds its
// own marks in what comes back, without decoding JSON.
package probe

import (
	"bytes"
	"strconv"
)

// Type is the CloudEvents type of all probes.
const Type = "loadtest.probe"

// A Mark is what each probe carries in its data.
type Mark struct {
	Seq uint64 // 1, 2, 3, … per channel and publisher
	At  int64  // when it was meant to be sent, on measure.Now's clock
	By  int    // tells publishers of one channel apart; 0 where there is one
}

// An Arrival is a probe as a client sees it.
type Arrival struct {
	Mark
	Epoch  []byte // of its cursor; points into the event
	Offset uint64
}

// padding fills data to the size asked for.
var padding = bytes.Repeat([]byte("0123456789abcdef"), 1<<14)

// AppendData appends the data of a probe: JSON of size bytes, or of the least
// that its marks take.
func AppendData(dst []byte, m Mark, size int) []byte {
	start := len(dst)
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, m.Seq, 10)
	dst = append(dst, `,"at":`...)
	dst = strconv.AppendInt(dst, m.At, 10)
	if m.By != 0 {
		dst = append(dst, `,"by":`...)
		dst = strconv.AppendInt(dst, int64(m.By), 10)
	}
	dst = append(dst, `,"pad":"`...)
	pad := min(max(size-(len(dst)-start)-2, 0), len(padding))
	dst = append(dst, padding[:pad]...)
	return append(dst, `"}`...)
}

// AppendEvent appends a probe in the publisher's short form. An empty id is
// left out: the gateway then makes one.
func AppendEvent(dst []byte, id string, m Mark, size int) []byte {
	return AppendKeyed(dst, id, "", m, size)
}

// AppendKeyed appends a probe that has a partition key, unless that is empty.
func AppendKeyed(dst []byte, id, key string, m Mark, size int) []byte {
	dst = append(dst, `{"type":"`+Type+`",`...)
	if key != "" {
		dst = append(dst, `"partitionkey":"`...)
		dst = append(dst, key...)
		dst = append(dst, `",`...)
	}
	if id != "" {
		dst = append(dst, `"id":"`...)
		dst = append(dst, id...)
		dst = append(dst, `",`...)
	}
	dst = append(dst, `"data":`...)
	return append(AppendData(dst, m, size), '}')
}

var (
	cursorKey = []byte(`"cursor":"`)
	seqKey    = []byte(`"seq":`)
	atKey     = []byte(`,"at":`)
	byKey     = []byte(`,"by":`)
)

// Read finds the marks in an event as the gateway sends it. It reports false
// for anything that isn't a probe with a cursor.
func Read(event []byte) (Arrival, bool) {
	var a Arrival
	i := bytes.Index(event, cursorKey)
	if i < 0 {
		return a, false
	}
	cursor := event[i+len(cursorKey):]
	if i = bytes.IndexByte(cursor, '"'); i < 0 {
		return a, false
	}
	var ok bool
	if a.Epoch, a.Offset, ok = SplitCursor(cursor[:i]); !ok {
		return a, false
	}
	m, ok := ReadMark(event)
	a.Mark = m
	return a, ok
}

// ReadMark finds the marks in an event or in its data alone.
func ReadMark(event []byte) (Mark, bool) {
	var m Mark
	i := bytes.Index(event, seqKey)
	if i < 0 {
		return m, false
	}
	seq, rest, ok := number(event[i+len(seqKey):])
	if !ok || !bytes.HasPrefix(rest, atKey) {
		return m, false
	}
	at, rest, ok := number(rest[len(atKey):])
	m.Seq, m.At = seq, int64(at)
	if ok && bytes.HasPrefix(rest, byKey) {
		var by uint64
		by, _, ok = number(rest[len(byKey):])
		m.By = int(by)
	}
	return m, ok
}

// SplitCursor takes a cursor of one channel, channel@epoch-offset, apart.
func SplitCursor(cursor []byte) (epoch []byte, offset uint64, ok bool) {
	at := bytes.IndexByte(cursor, '@')
	dash := bytes.LastIndexByte(cursor, '-')
	if at < 0 || dash < at {
		return nil, 0, false
	}
	offset, rest, ok := number(cursor[dash+1:])
	return cursor[at+1 : dash], offset, ok && len(rest) == 0
}

// number reads the digits that b begins with.
func number(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		d := uint64(b[i] - '0')
		if n > (1<<64-1-d)/10 {
			return 0, nil, false
		}
		n = n*10 + d
		i++
	}
	return n, b[i:], i > 0
}
