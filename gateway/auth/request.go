package auth

import (
	"net/http"
	"strings"

	"github.com/longline-push/longline/gateway/wire"
)

// Source says where a request carried its token.
type Source int

const (
	NoToken         Source = iota
	FromHeader             // Authorization: Bearer
	FromSubprotocol        // Sec-WebSocket-Protocol: bearer.<jwt>
	FromCookie             // longline_token
	FromQuery              // ?access_token=
)

// Cookie is the name of the cookie that may carry a token.
const Cookie = "longline_token"

// SubprotocolPrefix begins the WebSocket subprotocol entry that may carry a
// token. A reply never names that entry.
const SubprotocolPrefix = "bearer."

// FromRequest verifies the token a request carries: the first found counts, be
// it good or not.
func (v *Verifier) FromRequest(r *http.Request) (*Grant, Source, error) {
	token, source := v.token(r)
	if source == NoToken {
		if _, err := r.Cookie(Cookie); err == nil {
			return nil, NoToken, wire.Unauthorized("cookie %s counts only with an allowed Origin, or on a GET with Sec-Fetch-Site: same-origin", Cookie)
		}
		return nil, NoToken, wire.Unauthorized("no token; want Authorization: Bearer <token>, a WebSocket subprotocol %s<token>, cookie %s or query access_token", SubprotocolPrefix, Cookie)
	}
	g, err := v.Verify(r.Context(), token)
	return g, source, err
}

func (v *Verifier) token(r *http.Request) (string, Source) {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token), FromHeader
	}
	for _, line := range r.Header["Sec-Websocket-Protocol"] {
		for entry := range strings.SplitSeq(line, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(entry), SubprotocolPrefix); ok {
				return token, FromSubprotocol
			}
		}
	}
	if c, err := r.Cookie(Cookie); err == nil && v.cookieCounts(r) {
		return c.Value, FromCookie
	}
	if strings.Contains(r.URL.RawQuery, "access_token") {
		if token := r.URL.Query().Get("access_token"); token != "" {
			return token, FromQuery
		}
	}
	return "", NoToken
}

// cookieCounts keeps foreign pages from acting with a visitor's cookie: a
// browser sends it by itself, so the page's origin has to be one we know.
func (v *Verifier) cookieCounts(r *http.Request) bool {
	if r.Header.Get("Origin") != "" {
		return v.origins.Credentials(r)
	}
	// A same-origin GET carries no Origin.
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Site") == "same-origin"
}
