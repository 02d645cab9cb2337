package shape

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/webhook"
)

// unwrap makes an event's data the body of its message and, with headers, its
// attributes ce-* headers: CloudEvents' HTTP binding, binary mode.
func unwrap(m *webhook.Message, headers bool) error {
	var e event.Event
	if err := json.Unmarshal(m.Body, &e); err != nil {
		return fmt.Errorf("read the event: %w", err)
	}
	if headers {
		h := make(http.Header, 12)
		set := func(name, value string) {
			if value != "" {
				h[http.CanonicalHeaderKey("ce-"+name)] = []string{webhook.HeaderText(value)}
			}
		}
		set("specversion", "1.0")
		set("id", e.ID)
		set("source", e.Source)
		set("type", e.Type)
		if !e.Time.IsZero() {
			set("time", event.FormatTime(e.Time))
		}
		set("subject", e.Subject)
		set("partitionkey", e.Key)
		set("channel", e.Channel)
		set("cursor", e.Cursor)
		set("dataschema", e.DataSchema)
		for name, value := range e.Extensions {
			text := string(value) // a number or a bool
			_ = json.Unmarshal(value, &text)
			set(name, text)
		}
		m.Header = h
	}
	m.ContentType = e.ContentType
	if m.ContentType == "" {
		m.ContentType = "application/json"
	}
	m.Body = e.Data
	var text string
	switch {
	case e.Binary != nil:
		m.Body = e.Binary
	case !isJSON(m.ContentType) && json.Unmarshal(e.Data, &text) == nil:
		m.Body = []byte(text)
	}
	for i := range len(m.ContentType) {
		if c := m.ContentType[i]; c < ' ' || c > '~' {
			return fmt.Errorf("datacontenttype %q can't stand in a header", m.ContentType)
		}
	}
	return nil
}

func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (strings.HasSuffix(t, "/json") || strings.HasSuffix(t, "+json"))
}
