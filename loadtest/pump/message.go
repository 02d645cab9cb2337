package pump

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// message acts on a text frame of the gateway.
func (p *Pump) message(c *conn, payload []byte) error {
	// The one that comes thousands of times a second.
	if c.ready && bytes.HasPrefix(payload, []byte(`{"op":"ok"`)) {
		return p.finish(c)
	}
	var m struct {
		Op     string `json:"op"`
		Code   any    `json:"code"`
		Detail string `json:"detail"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("read control message: %w", err)
	}
	switch m.Op {
	case "hello":
		c.ready = true
		if c.job != nil {
			p.send(c)
		}
	case "error":
		return fmt.Errorf("%w: %v: %s", ErrRefused, m.Code, m.Detail)
	case "bye":
		return fmt.Errorf("bye from the gateway: %v %s", m.Code, m.Reason)
	}
	return nil
}
