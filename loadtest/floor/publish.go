package floor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/longline-push/longline/loadtest/probe"
	"github.com/longline-push/longline/loadtest/wire"
)

var dataKey = []byte(`"data":`)

// publish sends each probe in body (one object or an array) to the channel's
// subscribers and returns the answer in the gateway's form.
func (s *server) publish(ch *channel, body []byte) []byte {
	answer := append(make([]byte, 0, 128), `{"events":[`...)
	for {
		i := bytes.Index(body, dataKey)
		if i < 0 {
			break
		}
		body = body[i+len(dataKey):]
		end := bytes.IndexByte(body, '}') + 1 // a probe's data holds no other brace
		if end == 0 {
			break
		}
		ch.head++
		s.fanOut(ch, body[:end])
		if answer[len(answer)-1] != '[' {
			answer = append(answer, ',')
		}
		answer = fmt.Appendf(answer, `{"id":"%s","cursor":"%s@floor-%d"}`, id(ch.head), ch.name, ch.head)
		body = body[end:]
	}
	return append(answer, `]}`...)
}

// fanOut builds an event, as long as the gateway's own, and writes it to all.
func (s *server) fanOut(ch *channel, data []byte) {
	e := append(ch.event[:0], `{"specversion":"1.0","id":"`...)
	e = append(e, id(ch.head)...)
	e = append(e, `","source":"/channels/`...)
	e = append(e, ch.name...)
	e = append(e, `","type":"`+probe.Type+`","time":"2026-11-22T13:31:00.123Z","datacontenttype":"application/json","channel":"`...)
	e = append(e, ch.name...)
	e = append(e, `","cursor":"`...)
	cursor := len(e)
	e = append(e, ch.name...)
	e = append(e, `@floor-`...)
	e = strconv.AppendUint(e, ch.head, 10)
	position := e[cursor:]
	e = append(e, `","data":`...)
	e = append(e, data...)
	ch.event = append(e, '}')

	if len(ch.ws) > 0 {
		ch.frame = wire.AppendFrame(ch.frame[:0], wire.OpText, ch.event)
		s.writeAll(&ch.ws, ch.frame)
	}
	if len(ch.sse) > 0 {
		f := append(ch.frame[:0], "id: "...)
		f = append(f, position...)
		f = append(f, "\ndata: "...)
		f = append(f, ch.event...)
		ch.frame = append(f, "\n\n"...)
		s.writeAll(&ch.sse, ch.frame)
	}
}

// writeAll goes backwards: a subscriber that is gone is replaced by the last.
func (s *server) writeAll(subscribers *[]int32, frame []byte) {
	for i := len(*subscribers) - 1; i >= 0; i-- {
		if fd := int((*subscribers)[i]); send(fd, frame) != nil {
			s.close(fd)
		}
	}
}

// id looks like the UUIDs that a gateway makes.
func id(n uint64) string { return fmt.Sprintf("01990000-0000-7000-8000-%012x", n) }

// frame acts on one client frame and returns its size, 0 for "not yet whole".
func (s *server) frame(fd int, b []byte) (int, error) {
	f, n, err := wire.NextFrame(b)
	if n == 0 || err != nil {
		return 0, err
	}
	switch f.Op {
	case wire.OpClose:
		return 0, errGone
	case wire.OpPing:
		s.out = wire.AppendFrame(s.out[:0], wire.OpPong, f.Payload)
		return n, send(fd, s.out)
	case wire.OpText:
		var m struct {
			Op      string          `json:"op"`
			Ref     int64           `json:"ref"`
			Channel string          `json:"channel"`
			Events  json.RawMessage `json:"events"`
		}
		if err := json.Unmarshal(f.Payload, &m); err != nil {
			return 0, fmt.Errorf("read frame: %w", err)
		}
		if m.Op == "publish" {
			answer := s.publish(s.channel(m.Channel), m.Events)
			s.out = wire.AppendFrame(s.out[:0], wire.OpText, fmt.Appendf(nil, `{"op":"ok","ref":%d,%s`, m.Ref, answer[1:]))
			return n, send(fd, s.out)
		}
	}
	return n, nil
}
