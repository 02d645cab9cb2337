package longline

import (
	"fmt"
	"time"
)

// Definition is what a durable subscription is to be. Only Channels are needed;
// what is zero gets the gateway's default.
type Definition struct {
	Channels []string `json:"channels"`
	Types    []string `json:"types,omitempty"`  // patterns; none: all
	Filter   string   `json:"filter,omitempty"` // CEL over event that says yes or no
	// Start is where it begins, and channels that are added later: "latest"
	// (the default), "earliest", a cursor, or an RFC 3339 time.
	Start        string            `json:"start,omitempty"`
	Window       int               `json:"window,omitempty"` // events delivered and not acknowledged
	Group        *Group            `json:"group,omitempty"`  // nil: one consumer at a time
	ExpiresAfter Duration          `json:"expires_after,omitempty"`
	Description  string            `json:"description,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Callback     *CallbackSettings `json:"callback,omitempty"` // nil: events wait while nobody is attached
}

// Group has several consumers share a subscription, by keys.
type Group struct {
	Partitions int `json:"partitions"` // 1 to 256
}

// CallbackSettings are of the HTTP request by which events leave while nobody is attached.
type CallbackSettings struct {
	URL  string `json:"url"`
	Mode string `json:"mode,omitempty"` // "fallback" (the default), or "always": a plain webhook
	// Grace is how long nobody was attached before it begins.
	Grace Duration `json:"grace,omitempty"`
	// Secret signs, "whsec_…". One is made if there is none; that is told by
	// the call that made it and never again. Headers and Auth never come back.
	Secret      string            `json:"secret,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Auth        *CallbackAuth     `json:"auth,omitempty"`
	Rate        float64           `json:"rate,omitempty"`  // calls a second; 0: as fast as answered
	Order       string            `json:"order,omitempty"` // "channel" (the default) or "key"
	Concurrency int               `json:"concurrency,omitempty"`
	Batch       *Batch            `json:"batch,omitempty"`
	Timeout     Duration          `json:"timeout,omitempty"`

	Method    string             `json:"method,omitempty"`  // POST (the default), PUT or PATCH
	Format    string             `json:"format,omitempty"`  // "structured" (the default), "binary" or "data"
	Body      string             `json:"body,omitempty"`    // CEL that makes the body instead
	Outcome   string             `json:"outcome,omitempty"` // CEL over response: "ack", "refuse" or "retry"
	Signature *CallbackSignature `json:"signature,omitempty"`
}

// Batch has a callback bring several events at once.
type Batch struct {
	MaxEvents int      `json:"max_events,omitempty"`
	MaxWait   Duration `json:"max_wait,omitempty"`
}

// CallbackSignature signs once more, as an older receiver wants it.
type CallbackSignature struct {
	Header string `json:"header"`
	Scheme string `json:"scheme"` // "hmac-sha256-hex", "hmac-sha256-base64" or "stripe"
	Prefix string `json:"prefix,omitempty"`
}

// CallbackAuth is how a callback says who it is: one of the first three, and
// MTLS besides.
type CallbackAuth struct {
	Basic  *BasicAuth  `json:"basic,omitempty"`
	Bearer *BearerAuth `json:"bearer,omitempty"`
	OAuth2 *OAuth2     `json:"oauth2,omitempty"`
	MTLS   *MTLS       `json:"mtls,omitempty"`
}

// BasicAuth is HTTP's Basic.
type BasicAuth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// BearerAuth is a token that doesn't change.
type BearerAuth struct {
	Token string `json:"token"`
}

// OAuth2 has the gateway fetch tokens by client credentials.
type OAuth2 struct {
	TokenURL     string `json:"token_url"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Scope        string `json:"scope,omitempty"`
	Audience     string `json:"audience,omitempty"`
	Style        string `json:"style,omitempty"` // "basic" (the default) or "body"
}

// MTLS is a client's certificate, as PEM.
type MTLS struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	CA          string `json:"ca,omitempty"` // of the endpoint; "": the usual ones
}

// Duration is a time.Duration that is text in JSON, e.g. "10s".
type Duration time.Duration

// String is as time.Duration's.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration: %w", err)
	}
	*d = Duration(parsed)
	return nil
}

// SubscriptionInfo is a durable subscription: what it is to be, and how it is.
type SubscriptionInfo struct {
	Definition
	Name   string     `json:"name"`
	Cursor string     `json:"cursor"` // the acknowledged position
	Status Status     `json:"status"`
	Replay *ReplayDue `json:"replay"` // what it delivers again; nil: it is no replay
}

// ReplayDue is what a replay delivers: the positions From (exclusive) to To
// (inclusive) of the subscription named Of.
type ReplayDue struct{ Of, From, To string }

// Status is how a subscription is.
type Status struct {
	// State is "live", "pull", "waiting" (inside the grace), "callback",
	// "offline" (it has no callback), "paused" or "disabled".
	State string `json:"state"`
	// Consumer has it, at Node by Transport; "" for nobody.
	Consumer  string          `json:"consumer"`
	Node      string          `json:"node"`
	Transport string          `json:"transport"`
	Since     time.Time       `json:"since"`
	Due       time.Time       `json:"due"` // when the callback's turn is
	Lag       Lag             `json:"lag"`
	Dead      int             `json:"dead"` // letters
	Callback  *CallbackStatus `json:"callback"`
	// Members and Partitions are of a group.
	Members    []Member          `json:"members"`
	Partitions []PartitionStatus `json:"partitions"`
}

// Lag is how far a position is behind.
type Lag struct {
	Events  uint64 `json:"events"`
	Seconds int64  `json:"seconds"`
}

// CallbackStatus is how a callback's endpoint is.
type CallbackStatus struct {
	Breaker     string    `json:"breaker"` // "closed": all is well; "open", "half_open"
	LastStatus  int       `json:"last_status"`
	LastError   string    `json:"last_error"`
	NextAttempt time.Time `json:"next_attempt"`
	InFlight    int       `json:"in_flight"`
}

// Member is a consumer of a group.
type Member struct {
	Consumer, Node, Transport string
	Partitions                []int
	Since                     time.Time
}

// PartitionStatus is how one of a group's partitions is.
type PartitionStatus struct {
	Partition int
	Consumer  string // "" for none
	Cursor    string
	Lag       Lag
}
