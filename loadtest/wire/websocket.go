// Package wire reads and writes, without copying or allocating, the bytes that
// load clients, load publishers and the floor exchange: WebSocket frames, SSE
// blocks, HTTP/1.1 heads and chunks. Each reader takes what has arrived so far
// and answers how much of it was one complete item; 0 means "not yet".
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcodes of RFC 6455 section 5.2.
const (
	OpText   = 1
	OpBinary = 2
	OpClose  = 8
	OpPing   = 9
	OpPong   = 10
)

// maxFrame is far above what a gateway sends in one frame (events are at most
// some 256 KiB): a longer one means that the stream is out of step.
const maxFrame = 16 << 20

// ErrFrame is wrapped by all errors about malformed WebSocket frames.
var ErrFrame = errors.New("malformed WebSocket frame")

// A Frame is one WebSocket frame; Payload points into the buffer read from.
type Frame struct {
	Op      byte
	Payload []byte
}

// NextFrame reads the first frame of b and its size. A masked payload is
// unmasked in place. Fragments are refused: the gateway sends whole messages.
func NextFrame(b []byte) (Frame, int, error) {
	if len(b) < 2 {
		return Frame{}, 0, nil
	}
	if b[0]&0x70 != 0 {
		return Frame{}, 0, fmt.Errorf("%w: reserved bits set", ErrFrame)
	}
	op := b[0] & 0x0f
	if b[0]&0x80 == 0 || op == 0 {
		return Frame{}, 0, fmt.Errorf("%w: fragmented message", ErrFrame)
	}
	if op != OpText && op != OpBinary && (op < OpClose || op > OpPong) {
		return Frame{}, 0, fmt.Errorf("%w: unknown opcode %d", ErrFrame, op)
	}
	size, head := uint64(b[1]&0x7f), 2
	switch size {
	case 126:
		if len(b) < 4 {
			return Frame{}, 0, nil
		}
		size, head = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case 127:
		if len(b) < 10 {
			return Frame{}, 0, nil
		}
		size, head = binary.BigEndian.Uint64(b[2:]), 10
	}
	if size > maxFrame {
		return Frame{}, 0, fmt.Errorf("%w: %d bytes long", ErrFrame, size)
	}
	if op >= OpClose && size > 125 {
		return Frame{}, 0, fmt.Errorf("%w: control frame of %d bytes", ErrFrame, size)
	}
	masked := b[1]&0x80 != 0
	if masked {
		head += 4
	}
	end := head + int(size)
	if len(b) < end {
		return Frame{}, 0, nil
	}
	payload := b[head:end:end]
	if masked {
		key := b[head-4 : head]
		for i := range payload {
			payload[i] ^= key[i&3]
		}
		// Unmasked once only: whoever reads these bytes again sees a zero key.
		clear(key)
	}
	return Frame{Op: op, Payload: payload}, end, nil
}

// AppendFrame appends a server's (unmasked) frame to dst.
func AppendFrame(dst []byte, op byte, payload []byte) []byte {
	return append(appendHead(dst, op, len(payload), 0), payload...)
}

// AppendClientFrame appends a client's frame to dst. Its mask is zero, which
// RFC 6455 section 5.3 asks of no client but which costs the tester nothing.
func AppendClientFrame(dst []byte, op byte, payload []byte) []byte {
	dst = appendHead(dst, op, len(payload), 0x80)
	return append(append(dst, 0, 0, 0, 0), payload...)
}

func appendHead(dst []byte, op byte, size int, mask byte) []byte {
	dst = append(dst, 0x80|op)
	switch {
	case size < 126:
		return append(dst, mask|byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, mask|126), uint16(size))
	default:
		return binary.BigEndian.AppendUint64(append(dst, mask|127), uint64(size))
	}
}
