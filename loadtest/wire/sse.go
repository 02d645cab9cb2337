package wire

import "bytes"

// A Block is one event of a text/event-stream; fields it lacks are nil. They
// point into the buffer read from.
type Block struct {
	ID, Event, Data []byte
}

// NextBlock reads the first block of b and its size. The gateway writes each
// event's data on one line; of several data lines the last one is kept.
func NextBlock(b []byte) (Block, int) {
	end := bytes.Index(b, []byte("\n\n"))
	if end < 0 {
		return Block{}, 0
	}
	var block Block
	for rest := b[:end]; len(rest) > 0; {
		line := rest
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			block.Data = value
		case "id":
			block.ID = value
		case "event":
			block.Event = value
		}
	}
	return block, end + 2
}
