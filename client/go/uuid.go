package longline

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// newID makes a UUIDv7 (RFC 9562 §5.7), for events published without an id:
// made here and not by the gateway, so that a retry is recognised.
func newID() string {
	var u [16]byte
	rand.Read(u[6:]) // never fails; see its documentation
	ms := uint64(time.Now().UnixMilli())
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	text := make([]byte, 0, 36)
	for i, b := range [...][]byte{u[0:4], u[4:6], u[6:8], u[8:10], u[10:16]} {
		if i > 0 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, b)
	}
	return string(text)
}
