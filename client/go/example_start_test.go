package longline_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"time"

	longline "github.com/longline-push/longline/client/go"
)

// connect is what each of the examples begins with; see ExampleNew.
func connect() *longline.Client {
	client, err := longline.New(os.Getenv("LONGLINE_URL"), longline.Options{Token: os.Getenv("LONGLINE_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	return client
}

func minute() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

// A client that asks for a new token before the last one expires. Nothing is
// sent until it is used.
func ExampleNew() {
	_, err := longline.New("https://push.example.com", longline.Options{
		TokenFunc: func(ctx context.Context) (string, error) { return os.Getenv("LONGLINE_TOKEN"), nil },
	})
	fmt.Println(err)
	_, err = longline.New("push.example.com", longline.Options{})
	fmt.Println(err)
	// Output:
	// <nil>
	// bad_request: gateway is "push.example.com", want an http or https URL
}

// Publish returns when the events are durable, and tries again by itself. Two
// events of one id are one.
func ExampleClient_Publish() {
	ctx, cancel := minute()
	defer cancel()
	client := connect()

	e, err := longline.NewEvent("email.opened", map[string]string{"campaign": "autumn"})
	if err != nil {
		log.Fatal(err)
	}
	e.ID, e.Subject = "opened-4711", "alice@example.com"
	for range 2 {
		published, err := client.Publish(ctx, "acct-publish", e)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(published[0].ID, published[0].Duplicate)
	}
	// Output:
	// opened-4711 false
	// opened-4711 true
}

// Whatever appears in a channel from now on, or, as here, from its beginning.
func ExampleClient_Subscribe() {
	ctx, cancel := minute()
	defer cancel()
	client := connect()
	if _, err := client.Publish(ctx, "acct-subscribe", longline.Event{Type: "email.opened", Subject: "alice@example.com"}); err != nil {
		log.Fatal(err)
	}

	sub, err := client.Subscribe(longline.Selection{
		Channels: []string{"acct-subscribe"}, Types: []string{"email.*"}, Since: "earliest",
	}, longline.SubscriptionOptions{
		Handler: func(ctx context.Context, e longline.Event) error {
			fmt.Println(e.Type, e.Subject)
			cancel() // an example is content with one
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := sub.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: email.opened alice@example.com
}

// A durable subscription: made once, if it isn't there; then whoever attaches
// gets what wasn't handled yet.
func ExampleClient_Attach() {
	ctx, cancel := minute()
	defer cancel()
	client := connect()
	_, _, err := client.Subscriptions().Create(ctx, "attach-crm", longline.Definition{Channels: []string{"acct-attach"}, Start: "earliest"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.Publish(ctx, "acct-attach", longline.Event{Type: "email.opened", Subject: "alice@example.com"}); err != nil {
		log.Fatal(err)
	}

	failed := false
	sub, err := client.Attach("attach-crm", longline.SubscriptionOptions{
		Retry: longline.Retry{Min: time.Millisecond},
		Handler: func(ctx context.Context, e longline.Event) error {
			fmt.Println(e.Subject, "attempt", longline.DeliveryOf(ctx).Attempt)
			if !failed {
				failed = true
				return errors.New("the CRM is down") // the event comes again
			}
			cancel()
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := sub.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// alice@example.com attempt 1
	// alice@example.com attempt 2
}

// Data as a type of one's own. What isn't one becomes a dead letter.
func ExampleAttach() {
	ctx, cancel := minute()
	defer cancel()
	client := connect()
	_, _, err := client.Subscriptions().Create(ctx, "typed-crm", longline.Definition{Channels: []string{"acct-typed"}, Start: "earliest"})
	if err != nil {
		log.Fatal(err)
	}
	for _, data := range []any{"no object", map[string]any{"campaign": "autumn", "link": 3}} {
		e, err := longline.NewEvent("email.clicked", data)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := client.Publish(ctx, "acct-typed", e); err != nil {
			log.Fatal(err)
		}
	}

	type click struct {
		Campaign string
		Link     int
	}
	sub, err := longline.Attach(client, "typed-crm", func(ctx context.Context, e longline.Event, c click) error {
		fmt.Println(e.Type, c.Campaign, c.Link)
		cancel()
		return nil
	}, longline.SubscriptionOptions{
		OnReject: func(e longline.Event, err error) {
			var wrong *longline.DataError
			if errors.As(err, &wrong) {
				fmt.Println(string(e.Data), "is no", wrong.Type)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := sub.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// "no object" is no longline_test.click
	// email.clicked autumn 3
}

// An event that can't be handled, now or later, is set aside at once, and the
// others go on. Any other error has it called again.
func ExampleReject() {
	ctx, cancel := minute()
	defer cancel()
	client := connect()
	_, _, err := client.Subscriptions().Create(ctx, "strict-crm", longline.Definition{Channels: []string{"acct-strict"}, Start: "earliest"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Publish(ctx, "acct-strict",
		longline.Event{Type: "email.opened"}, longline.Event{Type: "email.opened", Subject: "alice@example.com"})
	if err != nil {
		log.Fatal(err)
	}

	sub, err := client.Attach("strict-crm", longline.SubscriptionOptions{
		Handler: func(ctx context.Context, e longline.Event) error {
			if e.Subject == "" {
				return longline.Reject(errors.New("no contact"))
			}
			fmt.Println(e.Subject)
			cancel()
			return nil
		},
		OnReject: func(e longline.Event, err error) { fmt.Println("rejected:", err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := sub.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// rejected: no contact
	// alice@example.com
}

// The subscription's handler, called by the gateway's posts. Here the post is
// made by hand, to show what it looks like.
func ExampleSubscription_CallbackHandler_post() {
	const secret = "whsec_YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s=" // as the subscription's PUT returned it
	sub, err := connect().Attach("crm-42", longline.SubscriptionOptions{
		Secrets: []string{secret},
		Handler: func(ctx context.Context, e longline.Event) error {
			fmt.Println(e.Type, e.Subject)
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(sub.CallbackHandler())
	defer server.Close()

	body := `{"specversion":"1.0","id":"1","source":"/app","type":"email.opened","subject":"alice@example.com","channel":"acct-42","cursor":"acct-42@k3m-1"}`
	key, err := base64.StdEncoding.DecodeString(secret[len("whsec_"):])
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range [][]byte{[]byte("somebody else's"), key} {
		stamp := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("1." + stamp + "." + body))
		req, err := http.NewRequest(http.MethodPost, server.URL, bytes.NewReader([]byte(body)))
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/cloudevents+json")
		req.Header.Set("webhook-id", "1")
		req.Header.Set("webhook-timestamp", stamp)
		req.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		res, err := server.Client().Do(req)
		if err != nil {
			log.Fatal(err)
		}
		res.Body.Close()
		fmt.Println(res.StatusCode)
	}
	// Output:
	// 401
	// email.opened alice@example.com
	// 204
}
