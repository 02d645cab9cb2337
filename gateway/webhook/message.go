// Package webhook makes the request that a callback is: what it says, and the
// signature by which its receiver knows that the gateway said it.
package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/longline-push/longline/event"
)

// Content types of a callback's body.
const (
	typeEvent = "application/cloudevents+json"
	typeBatch = "application/cloudevents-batch+json"
)

// Event is an event to deliver. Its bytes are only read.
type Event struct {
	Cursor event.Cursor
	ID     string
	JSON   []byte // as every transport sends it
	// Redelivery: another owner may have delivered it before.
	Redelivery bool
}

// Message is what one callback says: one event or a batch, and the place it
// has in its subscription. It is the same on every attempt but for Attempt.
type Message struct {
	Subscription string
	ID           string // webhook-id, the same on every attempt
	Cursor       string // longline-cursor: the place of the newest events in it, per channel
	Body         []byte
	Batch        bool        // Body is an array
	Attempt      int         // counts from 1
	Trace        event.Trace // is passed on by headers; the attempt's own
	Redelivery   bool        // another owner may have delivered it before

	// What a request shape makes different; see package shape.
	Method      string         // "": POST
	URL         *url.URL       // nil: the callback's
	ContentType string         // "": CloudEvents'
	Header      http.Header    // of the event's attributes; only read
	Legacy      *LegacySigning // nil: none
}

// NewMessage makes the message that delivers events, at least one: as an
// array if batch is set, else exactly one by itself.
func NewMessage(subscription string, events []Event, batch bool) Message {
	first, last := &events[0], &events[len(events)-1]
	m := Message{Subscription: subscription, Batch: batch, Attempt: 1}
	for i := range events {
		m.Redelivery = m.Redelivery || events[i].Redelivery
	}
	if !batch {
		m.ID, m.Cursor, m.Body = HeaderText(first.ID), first.Cursor.String(), first.JSON
		return m
	}
	if m.ID = batchID(first.Cursor, last.Cursor); first.Cursor.Channel == "" {
		m.ID = HeaderText(first.ID) // a test's, which has no place
	}
	m.Cursor = newest(events).String()
	size := 1 + len(events)
	for i := range events {
		size += len(events[i].JSON)
	}
	m.Body = make([]byte, 0, size)
	for i := range events {
		if i == 0 {
			m.Body = append(m.Body, '[')
		} else {
			m.Body = append(m.Body, ',')
		}
		m.Body = append(m.Body, events[i].JSON...)
	}
	m.Body = append(m.Body, ']')
	return m
}

// batchID makes a batch's id from its first and last cursor. It is hashed,
// because cursors hold dots, which separate the parts of what is signed.
func batchID(first, last event.Cursor) string {
	text := last.Append(append(first.Append(nil), '|'))
	sum := sha256.Sum256(text)
	return "batch-" + hex.EncodeToString(sum[:16])
}

// newest is the position after events: the last cursor of each channel.
func newest(events []Event) event.Position {
	var p event.Position
	for i := range events {
		c := events[i].Cursor
		at := slices.IndexFunc(p, func(o event.Cursor) bool { return o.Channel == c.Channel })
		if at < 0 {
			p = append(p, c)
		} else if p[at].Epoch != c.Epoch || p[at].Offset < c.Offset {
			p[at] = c
		}
	}
	return p
}

// HeaderText makes a publisher's text fit for a header, as the HTTP binding of
// CloudEvents does it (§3.1.3.2): everything but visible ASCII, and quote and
// percent sign too, becomes %XX.
func HeaderText(s string) string {
	const hexDigits = "0123456789ABCDEF"
	plain := func(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = plain(s[i])
	}
	if clean {
		return s
	}
	out := make([]byte, 0, len(s)+8)
	for i := 0; i < len(s); i++ {
		if c := s[i]; plain(c) {
			out = append(out, c)
		} else {
			out = append(out, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(out)
}

// NewRequest makes the POST of a message to a URL, signed at the time at by
// each secret that lives then. With no secret it is not signed.
func NewRequest(ctx context.Context, to string, m Message, secrets []Secret, at time.Time) (*http.Request, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, fmt.Errorf("parse a callback's URL: %w", err)
	}
	return Request(ctx, u, nil, &m, secrets, at), nil
}

// Request is NewRequest with the parsed URL and headers of the user's, which
// are only read.
func Request(ctx context.Context, u *url.URL, extra http.Header, m *Message, secrets []Secret, at time.Time) *http.Request {
	h := make(http.Header, 10+len(extra))
	for name, values := range extra {
		h[name] = values
	}
	if extra.Get("User-Agent") == "" {
		h["User-Agent"] = userAgent
	}
	for name, values := range m.Header {
		h[name] = values
	}
	switch {
	case m.ContentType != "":
		h["Content-Type"] = []string{m.ContentType}
	case m.Batch:
		h["Content-Type"] = contentBatch
	default:
		h["Content-Type"] = contentEvent
	}
	if m.Legacy != nil {
		m.Legacy.sign(h, secrets, at, m.Body)
	}
	// One array for the values that change, instead of one allocation each.
	v := [...]string{
		m.ID, strconv.FormatInt(at.Unix(), 10), sign(secrets, m.ID, at, m.Body),
		m.Subscription, m.Cursor, strconv.Itoa(m.Attempt), "true",
	}
	h["Webhook-Id"] = v[0:1:1]
	h["Webhook-Timestamp"] = v[1:2:2]
	if v[2] != "" {
		h["Webhook-Signature"] = v[2:3:3]
	}
	if v[3] != "" {
		h["Longline-Subscription"] = v[3:4:4]
	}
	if v[4] != "" {
		h["Longline-Cursor"] = v[4:5:5]
	}
	h["Longline-Attempt"] = v[5:6:6]
	if m.Redelivery {
		h["Longline-Redelivery"] = v[6:7:7]
	}
	body, method := m.Body, http.MethodPost
	if m.Method != "" {
		method = m.Method
	}
	if m.URL != nil {
		u = m.URL
	}
	r := &http.Request{
		Method: method, URL: u, Host: u.Host, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: int64(len(body)),
		Body:          io.NopCloser(bytes.NewReader(body)),
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}
	return r.WithContext(ctx)
}

// Header values that never change, shared and never written to.
var (
	contentEvent = []string{typeEvent}
	contentBatch = []string{typeBatch}
	userAgent    = []string{"Longline"}
)
