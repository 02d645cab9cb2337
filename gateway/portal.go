package gateway

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/longline-push/longline/docs/recipes"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/console"
	"github.com/longline-push/longline/gateway/wire"
)

// What a portal's link may be.
const (
	portalTTL     = 15 * time.Minute
	minPortalTTL  = time.Minute
	maxPortalTTL  = time.Hour
	maxPortalList = 64
	maxPortalName = 60   // characters
	maxReturnURL  = 2048 // bytes
)

var accentColour = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)

// portalRequest is what a link is asked for with.
type portalRequest struct {
	Subject       string   `json:"sub"`
	Subscriptions []string `json:"subscriptions"`
	Channels      []string `json:"channels"`
	TTL           string   `json:"ttl"`
	Theme         struct {
		Name   string `json:"name"`
		Accent string `json:"accent"`
	} `json:"theme"`
	ReturnURL string `json:"return_url"`
}

// makePortal answers with a link to the portal, for one customer: its token is
// in the fragment, which no server and no log sees, and allows what was asked
// for and nothing else.
func (s *Server) makePortal(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	if s.o.MintPortal == nil {
		return wire.Forbidden("this gateway has no secret to sign a portal's token with, only keys to verify tokens by; want --jwt-secret-file beside them")
	}
	var in portalRequest
	if err := readJSON(r, &in); err != nil {
		return wire.BadRequest(`%v; want {"sub":"customer-42","subscriptions":["crm-42-*"],"channels":["acct-42"],"ttl":"15m"}`, err)
	}
	m, err := in.mintage()
	if err != nil {
		return err
	}
	token, err := s.o.MintPortal(m)
	if err != nil {
		return wire.BadRequest("%v", err)
	}
	path := "/portal#token=" + token
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" { // of an admin's own request
		scheme = "https"
	}
	s.logger(w).Info("portal opened", "sub", in.Subject, "ttl", m.TTL)
	return writeJSON(w, struct {
		URL     string    `json:"url"`
		Path    string    `json:"path"`
		Expires time.Time `json:"expires"`
	}{scheme + "://" + r.Host + path, path, time.Now().Add(m.TTL).UTC().Truncate(time.Second)})
}

// mintage checks what is asked for. A portal is for one customer: channels are
// named, and no pattern of subscriptions is everybody's.
func (in *portalRequest) mintage() (m auth.Mintage, err error) {
	m = auth.Mintage{
		Subject: in.Subject, Subscribe: in.Channels, Subscriptions: in.Subscriptions, TTL: portalTTL,
		Portal: &auth.Portal{Name: in.Theme.Name, Accent: in.Theme.Accent, ReturnURL: in.ReturnURL},
	}
	if in.TTL != "" {
		if m.TTL, err = time.ParseDuration(in.TTL); err != nil || m.TTL < minPortalTTL || m.TTL > maxPortalTTL {
			return m, wire.BadRequest("ttl is %.40q; want a time from %v to %v, e.g. 15m", in.TTL, minPortalTTL, maxPortalTTL)
		}
	}
	if in.Subject == "" || len(in.Subject) > 256 {
		return m, wire.BadRequest("sub is %.80q; want whom the portal is for, in at most 256 bytes", in.Subject)
	}
	for name, list := range map[string][]string{"subscriptions": in.Subscriptions, "channels": in.Channels} {
		if len(list) < 1 || len(list) > maxPortalList {
			return m, wire.BadRequest("%s are %d; want 1 to %d", name, len(list), maxPortalList)
		}
	}
	for _, pattern := range in.Subscriptions {
		if strings.HasPrefix(pattern, "*") {
			return m, wire.BadRequest("subscription %q may be others' too; want names that begin with what is this customer's own, e.g. crm-42-*", pattern)
		}
	}
	for _, channel := range in.Channels {
		if err := event.CheckChannel(channel); err != nil {
			return m, wire.BadRequest("%v; a portal takes no patterns of channels", err)
		}
		if event.Reserved(channel) {
			return m, wire.BadRequest("channel %q is the gateway's own; no customer's", channel)
		}
	}
	if in.Theme.Accent != "" && !accentColour.MatchString(in.Theme.Accent) {
		return m, wire.BadRequest("theme.accent is %.40q; want a colour such as #0a7464", in.Theme.Accent)
	}
	if utf8.RuneCountInString(in.Theme.Name) > maxPortalName {
		return m, wire.BadRequest("theme.name has %d characters; want at most %d", utf8.RuneCountInString(in.Theme.Name), maxPortalName)
	}
	return m, checkReturnURL(in.ReturnURL)
}

// checkReturnURL takes an address that a link may lead to.
func checkReturnURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || len(text) > maxReturnURL {
		return wire.BadRequest("return_url is %.200q; want https://… or http://… with a host and no user, in at most %d bytes", text, maxReturnURL)
	}
	return nil
}

// portal serves the portal's page, which only the origins that were configured
// may have in a frame.
func (s *Server) portal(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	if len(s.o.PortalOrigins) > 0 {
		const nobody = "frame-ancestors 'none'"
		framed := "frame-ancestors " + strings.Join(s.o.PortalOrigins, " ")
		w.Header().Set("Content-Security-Policy", strings.Replace(console.Policy, nobody, framed, 1))
	}
	console.Serve(w, r, "portal.html")
	return nil
}

// listRecipes answers with definitions to begin from.
func (s *Server) listRecipes(w http.ResponseWriter, _ *http.Request, _ *auth.Grant) error {
	return writeJSON(w, map[string]any{"recipes": recipes.All()})
}
