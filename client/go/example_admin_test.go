package longline_test

import (
	"errors"
	"fmt"
	"log"
	"time"

	longline "github.com/longline-push/longline/client/go"
)

// A subscription with a callback, changed a little, looked at, and removed.
func ExampleSubscriptions() {
	ctx, cancel := minute()
	defer cancel()
	subscriptions := connect().Subscriptions()
	made, created, err := subscriptions.Create(ctx, "crm-managed", longline.Definition{
		Channels: []string{"acct-managed"},
		Labels:   map[string]string{"customer": "42"},
		Callback: &longline.CallbackSettings{URL: "https://crm.example.com/longline", Rate: 20},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("created:", created, "- secret to be kept:", made.Callback.Secret != "")
	if _, err := subscriptions.Patch(ctx, "crm-managed", map[string]any{"callback": map[string]any{"rate": 5}}); err != nil {
		log.Fatal(err)
	}
	for info, err := range subscriptions.List(ctx, longline.ListOptions{Label: "customer=42"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(info.Name, info.Callback.Rate, "calls a second,", info.Status.Lag.Events, "events behind")
	}
	if err := subscriptions.Delete(ctx, "crm-managed"); err != nil {
		log.Fatal(err)
	}
	_, err = subscriptions.Get(ctx, "crm-managed")
	fmt.Println("gone:", errors.Is(err, longline.ErrNotFound))
	// Output:
	// created: true - secret to be kept: true
	// crm-managed 5 calls a second, 0 events behind
	// gone: true
}

// A job that runs each minute and can hold no connection. What it can't handle
// is set aside, looked at, and delivered again when the reason is gone.
func ExampleSubscriptions_Pull() {
	ctx, cancel := minute()
	defer cancel()
	client := connect()
	subscriptions := client.Subscriptions()
	if _, _, err := subscriptions.Create(ctx, "pulled-crm", longline.Definition{Channels: []string{"acct-pulled"}, Start: "earliest"}); err != nil {
		log.Fatal(err)
	}
	if _, err := client.Publish(ctx, "acct-pulled", longline.Event{Type: "email.opened", Subject: "alice@example.com"}, longline.Event{Type: "email.opened"}); err != nil {
		log.Fatal(err)
	}
	pull := func() {
		done := ""
		for {
			pulled, err := subscriptions.Pull(ctx, "pulled-crm", longline.PullOptions{Max: 10, Ack: done})
			if err != nil {
				log.Fatal(err)
			}
			if len(pulled.Events) == 0 {
				return
			}
			for _, e := range pulled.Events {
				fmt.Printf("%s %q\n", e.Type, e.Subject)
				if e.Subject == "" {
					if _, err := subscriptions.Reject(ctx, "pulled-crm", e.Cursor, longline.RejectOptions{Reason: "whose contact is this?"}); err != nil {
						log.Fatal(err)
					}
				}
			}
			done = pulled.Cursor
		}
	}
	pull()
	for letter, err := range subscriptions.Dead(ctx, "pulled-crm") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("set aside:", letter.Reason)
	}
	n, err := subscriptions.Redrive(ctx, "pulled-crm", longline.Letters{All: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, "is to come again")
	// Output:
	// email.opened "alice@example.com"
	// email.opened ""
	// set aside: whose contact is this?
	// 1 is to come again
}

// Everything once more, from the beginning, and what became of an event.
func ExampleSubscriptions_Seek() {
	ctx, cancel := minute()
	defer cancel()
	client := connect()
	subscriptions := client.Subscriptions()
	if _, _, err := subscriptions.Create(ctx, "sought-crm", longline.Definition{Channels: []string{"acct-sought"}}); err != nil {
		log.Fatal(err)
	}
	published, err := client.Publish(ctx, "acct-sought", longline.Event{Type: "email.opened"})
	if err != nil {
		log.Fatal(err)
	}
	for _, to := range []string{"latest", "earliest"} {
		if _, err := subscriptions.Seek(ctx, "sought-crm", to); err != nil {
			log.Fatal(err)
		}
		trace, err := subscriptions.Trace(ctx, "sought-crm", published[0].Cursor)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(to, trace.State)
	}
	// Output:
	// latest skipped
	// earliest waiting
}

// A channel as it is, without a position that anybody keeps.
func ExampleChannels_Read() {
	ctx, cancel := minute()
	defer cancel()
	client := connect()
	if _, err := client.Publish(ctx, "acct-read", longline.Event{Type: "email.opened"}, longline.Event{Type: "email.clicked"}); err != nil {
		log.Fatal(err)
	}
	page, err := client.Channels().Read(ctx, "acct-read", longline.ReadOptions{Since: "earliest", Types: []string{"email.clicked"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range page.Events {
		fmt.Println(e.Type)
	}
	// Output: email.clicked
}

// On your server: a token for who is signed in, for their page.
func ExampleMintToken() {
	secret := []byte("the gateway's --jwt-secret-file, 32 bytes or more")
	token, err := longline.MintToken(secret, longline.Grant{Subject: "customer-42", Subscribe: []string{"acct-42"}, TTL: 5 * time.Minute})
	fmt.Println(token != "", err)
	_, err = longline.MintToken([]byte("secret"), longline.Grant{Subject: "customer-42"})
	fmt.Println(err)
	// Output:
	// true <nil>
	// bad_request: the secret has 6 bytes, want 32 or more
}
