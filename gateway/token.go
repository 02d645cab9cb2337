package gateway

import (
	"net/http"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// tokenInfo is what a token says, as the gateway understands it.
type tokenInfo struct {
	Subject        string     `json:"sub"`
	ID             string     `json:"jti,omitempty"`
	Issued         *time.Time `json:"issued,omitempty"`
	Expires        time.Time  `json:"expires"`
	Subscribe      []string   `json:"subscribe"`
	Publish        []string   `json:"publish"`
	Subscriptions  []string   `json:"subscriptions"`
	Admin          bool       `json:"admin"`
	MaxConnections int        `json:"max_connections,omitempty"`
	// Portal is of a token that opens one.
	Portal *auth.Portal `json:"portal,omitempty"`
	// Node and Version are of the gateway that answers; Mints tells whether it
	// makes tokens for admins.
	Node    string `json:"node"`
	Version string `json:"version,omitempty"`
	Mints   bool   `json:"mints"`
}

// showToken tells the bearer what the token may do.
func (s *Server) showToken(w http.ResponseWriter, _ *http.Request, g *auth.Grant) error {
	info := tokenInfo{
		Subject: g.Subject, ID: g.TokenID, Expires: g.Expires().UTC(),
		Subscribe: g.Subscribe(), Publish: g.Publish(), Subscriptions: g.Subscriptions(),
		Admin: g.Admin, MaxConnections: g.MaxConnections, Portal: g.Portal,
		Node: s.o.Hub.Node(), Version: s.o.Version, Mints: s.o.Mint != nil,
	}
	if g.Issued() > 0 {
		issued := time.Unix(g.Issued(), 0).UTC()
		info.Issued = &issued
	}
	return writeJSON(w, info)
}

// maxMinted is how long a token that is made here may last.
const maxMinted = 30 * 24 * time.Hour

// mint makes a token where the gateway has a key of its own, on a developer's
// machine.
func (s *Server) mint(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	if s.o.Mint == nil {
		return wire.Forbidden("this gateway makes no tokens: it was given a key, and whoever has that makes them, e.g. by longline token")
	}
	var in struct {
		Subject        string   `json:"sub"`
		Subscribe      []string `json:"subscribe"`
		Publish        []string `json:"publish"`
		Subscriptions  []string `json:"subscriptions"`
		Admin          bool     `json:"admin"`
		MaxConnections int      `json:"max_connections"`
		TTL            string   `json:"ttl"`
	}
	const want = `{"sub":"…","subscribe":["acct-42"],"publish":[…],"subscriptions":["crm-42-*"],"admin":false,"ttl":"1h"}`
	if err := readJSON(r, &in); err != nil {
		return wire.BadRequest("%v; want %s", err, want)
	}
	ttl := time.Hour
	if in.TTL != "" {
		var err error
		if ttl, err = time.ParseDuration(in.TTL); err != nil || ttl < time.Second || ttl > maxMinted {
			return wire.BadRequest("ttl is %.40q; want a time from 1s to %v, e.g. 1h", in.TTL, maxMinted)
		}
	}
	if in.Subject == "" || in.MaxConnections < 0 {
		return wire.BadRequest("a token needs sub, and max_connections not below 0; want %s", want)
	}
	token, err := s.o.Mint(auth.Mintage{
		Subject: in.Subject, Subscribe: in.Subscribe, Publish: in.Publish, Subscriptions: in.Subscriptions,
		Admin: in.Admin, MaxConnections: in.MaxConnections, TTL: ttl,
	})
	if err != nil {
		return wire.BadRequest("%v", err)
	}
	s.logger(w).Info("token made", "sub", in.Subject, "admin", in.Admin, "ttl", ttl)
	return writeJSON(w, map[string]string{"token": token})
}
