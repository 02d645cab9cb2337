package access_test

import (
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/wire"
)

// wantAnswer wants a yes, which is "", or a 403 that says something.
func wantAnswer(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: refused: %v", name, err)
	case want != "" && (err == nil || wire.From(err).Code != wire.CodeForbidden || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got %v, want forbidden, saying %q", name, err, want)
	}
}

func TestWhatABearerMayDo(t *testing.T) {
	g := authtest.Grant(t, auth.Mintage{Subscribe: []string{"acct-42", "news.**"}, Publish: []string{"acct-42"}, Subscriptions: []string{"crm-*"}})
	root := authtest.Grant(t, auth.Mintage{Admin: true})
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"read the channel named", access.Read(g, "acct-42"), ""},
		{"read below a pattern", access.Read(g, "news.eu"), ""},
		{"read another", access.Read(g, "acct-43"), `may not subscribe to "acct-43"`},
		{"read the gateway's own", access.Read(g, "longline.events"), "longline.events"},
		{"publish where it may", access.Publish(g, "acct-42"), ""},
		{"publish where it only reads", access.Publish(g, "news.eu"), `may not publish to "news.eu"`},
		{"admin publishes as the gateway", access.Publish(root, "longline.events"), "gateway's own"},
		{"publish a type", access.PublishType("email.opened"), ""},
		{"publish a type of the gateway's own", access.PublishType("longline.bye"), "gateway's own"},
		{"use a subscription", access.Subscription(g, "crm-1", []string{"acct-42", "news.eu"}), ""},
		{"use another's", access.Subscription(g, "erp-1", []string{"acct-42"}), `may not use subscription "erp-1"`},
		{"use one with a channel too many", access.Subscription(g, "crm-1", []string{"acct-42", "acct-43"}), `"acct-43", a channel of subscription "crm-1"`},
		{"admin uses any", access.Subscription(root, "erp-1", []string{"acct-43", "longline.events"}), ""},
		{"what is for admins", access.Admin(g, "GET /v1/nodes"), "GET /v1/nodes is for admins"},
		{"admin does", access.Admin(root, "GET /v1/nodes"), ""},
	} {
		wantAnswer(t, tt.name, tt.err, tt.want)
	}
}

func TestRenewalNeedsEveryRightInUse(t *testing.T) {
	had := authtest.Grant(t, auth.Mintage{Subscribe: []string{"a", "b"}, Subscriptions: []string{"crm"}})
	open, held := access.Use{Channels: []string{"a"}}, access.Use{Subscription: "crm", Channels: []string{"a"}}
	for _, tt := range []struct {
		name string
		next auth.Mintage
		use  access.Use
		want string
	}{
		{"the same rights", auth.Mintage{Subscribe: []string{"a", "b"}, Subscriptions: []string{"crm"}}, held, ""},
		{"what isn't in use is gone", auth.Mintage{Subscribe: []string{"a"}}, open, ""},
		{"another sub", auth.Mintage{Subject: "bob", Subscribe: []string{"a"}}, open, "same sub"},
		{"a channel in use is gone", auth.Mintage{Subscribe: []string{"b"}}, open, `"a", which is in use`},
		{"the subscription is gone", auth.Mintage{Subscribe: []string{"a"}}, held, `may not use subscription "crm"`},
		{"a channel of the subscription is gone", auth.Mintage{Subscribe: []string{"b"}, Subscriptions: []string{"crm"}}, held, `"a", a channel of subscription "crm"`},
		{"the subscription, while it stands by", auth.Mintage{Subscribe: []string{"a"}}, access.Use{Subscription: "crm"}, `may not use subscription "crm"`},
		{"an admin now", auth.Mintage{Admin: true}, held, ""},
	} {
		wantAnswer(t, tt.name, access.Renew(had, authtest.Grant(t, tt.next), tt.use), tt.want)
	}
}
