package longline

// identity is what makes two deliveries the same event: CloudEvents' source
// and id, within a channel.
type identity struct{ channel, source, id string }

func identify(e *Event) identity { return identity{e.Channel, e.Source, e.ID} }

// String is the identity as one key of a Store.
func (i identity) String() string { return i.channel + " " + i.source + " " + i.id }

// memory remembers what became of the last events, a bounded number of them.
// Not safe for concurrent use.
type memory struct {
	most int
	of   map[identity]past
	ring []identity // oldest at next, once full
	next int
}

// past is what became of an event: handled, rejected with a reason, or, with
// neither, tried in vain so many times.
type past struct {
	handled bool
	refused string // why it was rejected
	history
}

func newMemory(most int) *memory { return &memory{most: most, of: make(map[identity]past)} }

func (m *memory) put(id identity, p past) {
	if m.most <= 0 {
		return
	}
	if _, ok := m.of[id]; ok {
		m.of[id] = p
		return
	}
	if len(m.ring) < m.most {
		m.ring = append(m.ring, id)
	} else {
		delete(m.of, m.ring[m.next])
		m.ring[m.next] = id
		m.next = (m.next + 1) % m.most
	}
	m.of[id] = p
}

func (m *memory) get(id identity) past { return m.of[id] }
