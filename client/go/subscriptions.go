package longline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
)

// Subscriptions are the gateway's durable subscriptions, for who administers
// them: what they are, where they stand, and what became of their events. To
// handle events, see Client.Attach. Safe for concurrent use; a call is made
// once, and Error.Temporary says whether another may work.
type Subscriptions struct{ client *Client }

// Subscriptions returns those that the token names.
func (c *Client) Subscriptions() Subscriptions { return Subscriptions{c} }

// call makes a call about the subscription of that name.
func (s Subscriptions) call(ctx context.Context, method, name, rest string, body, answer any) error {
	path, err := s.path(name, rest)
	if err != nil {
		return err
	}
	return s.client.Do(ctx, method, path, body, answer)
}

func (s Subscriptions) path(name, rest string) (string, error) {
	if name == "" {
		return "", &Error{Code: ErrBadRequest.Code, Detail: "a subscription has a name"}
	}
	return "/v1/subscriptions/" + url.PathEscape(name) + rest, nil
}

// Get returns what a subscription is and how it is.
func (s Subscriptions) Get(ctx context.Context, name string) (info SubscriptionInfo, err error) {
	err = s.call(ctx, http.MethodGet, name, "", nil, &info)
	return info, err
}

// Put creates a subscription or replaces what it is: what d doesn't name is
// gone, but for the callback's secret. Its position stays. Where a secret was
// made, the answer alone holds it.
func (s Subscriptions) Put(ctx context.Context, name string, d Definition) (info SubscriptionInfo, err error) {
	err = s.call(ctx, http.MethodPut, name, "", d, &info)
	return info, err
}

// Create creates a subscription unless there is one of that name, which then
// stays as it is: what a program does at its start, without undoing what
// others set up. created tells which; if it is false, info is empty.
func (s Subscriptions) Create(ctx context.Context, name string, d Definition) (info SubscriptionInfo, created bool, err error) {
	path, err := s.path(name, "")
	if err != nil {
		return info, false, err
	}
	payload, err := json.Marshal(d)
	if err != nil {
		return info, false, fmt.Errorf("encode definition: %w", err)
	}
	err = s.client.send(ctx, http.MethodPut, path, "application/json", payload, &info, "If-None-Match", "*")
	if errors.Is(err, ErrConflict) {
		return info, false, nil
	}
	return info, err == nil, err
}

// Patch changes what is named, and nothing else (RFC 7396: null removes), e.g.
// map[string]any{"callback": map[string]any{"rate": 5}}.
func (s Subscriptions) Patch(ctx context.Context, name string, changes any) (info SubscriptionInfo, err error) {
	err = s.call(ctx, http.MethodPatch, name, "", changes, &info)
	return info, err
}

// Delete ends a subscription, and whoever is attached to it.
func (s Subscriptions) Delete(ctx context.Context, name string) error {
	return s.call(ctx, http.MethodDelete, name, "", nil, nil)
}

// ListOptions say which subscriptions are listed. The zero value: all.
type ListOptions struct {
	Prefix  string // of the name
	State   string // as in Status
	Label   string // NAME=VALUE
	Channel string
}

// List goes through the subscriptions by name. An error is the last thing that
// comes.
func (s Subscriptions) List(ctx context.Context, o ListOptions) iter.Seq2[SubscriptionInfo, error] {
	q := query("prefix", o.Prefix, "state", o.State, "label", o.Label, "channel", o.Channel)
	return pages[SubscriptionInfo](ctx, s.client, "/v1/subscriptions", q, "subscriptions", "cursor")
}

// Seek moves the position: to is a cursor or position, "earliest", "latest" or
// an RFC 3339 time. Whoever is attached goes on from there. It returns the
// position.
func (s Subscriptions) Seek(ctx context.Context, name, to string) (cursor string, err error) {
	var answer struct{ Cursor string }
	err = s.call(ctx, http.MethodPost, name, "/seek", map[string]string{"to": to}, &answer)
	return answer.Cursor, err
}

// Pause has events wait, until Resume.
func (s Subscriptions) Pause(ctx context.Context, name string) (info SubscriptionInfo, err error) {
	err = s.call(ctx, http.MethodPost, name, "/pause", nil, &info)
	return info, err
}

// Resume ends a pause.
func (s Subscriptions) Resume(ctx context.Context, name string) (info SubscriptionInfo, err error) {
	err = s.call(ctx, http.MethodPost, name, "/resume", nil, &info)
	return info, err
}

// TestEvent is what a test's event holds.
type TestEvent struct {
	Subject string          `json:"subject,omitempty"`
	Key     string          `json:"partitionkey,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// TestResult is what a callback sent, secrets starred, and what came back.
type TestResult struct {
	Request *struct { // nil: the event doesn't fit the callback's shape
		Method, URL, Body string
		Headers           map[string]string
	}
	Status    int     `json:"status"` // 0: no answer
	LatencyMS float64 `json:"latency_ms"`
	Error     string  `json:"error"`
	Body      string  `json:"body"`
}

// Test has the callback send one event of type longline.test, now.
func (s Subscriptions) Test(ctx context.Context, name string, e TestEvent) (result TestResult, err error) {
	err = s.call(ctx, http.MethodPost, name, "/test", e, &result)
	return result, err
}

// RotateSecret makes another secret of the callback's. The old one goes on
// signing, beside it, for 24 hours.
func (s Subscriptions) RotateSecret(ctx context.Context, name string) (secret string, err error) {
	var answer struct{ Secret string }
	err = s.call(ctx, http.MethodPost, name, "/rotate-secret", nil, &answer)
	return answer.Secret, err
}

// query makes the query of names and values, without those that are empty.
func query(namesAndValues ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(namesAndValues); i += 2 {
		if namesAndValues[i+1] != "" {
			q.Set(namesAndValues[i], namesAndValues[i+1])
		}
	}
	return q
}

// pages goes through a list of which an answer brings one page, in member; its
// "next" is for the parameter of that name.
func pages[T any](ctx context.Context, c *Client, path string, q url.Values, member, parameter string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		q := maps.Clone(q) // who ranges over it again begins anew
		q.Set("limit", strconv.Itoa(pageSize))
		for {
			var answer map[string]json.RawMessage
			var items []T
			var next string
			err := c.Do(ctx, http.MethodGet, path+"?"+q.Encode(), nil, &answer)
			if err == nil {
				err = json.Unmarshal(answer[member], &items)
			}
			if err == nil && answer["next"] != nil {
				err = json.Unmarshal(answer["next"], &next)
			}
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			q.Set(parameter, next)
		}
	}
}

// pageSize is how much of a list is asked for at once.
const pageSize = 100
