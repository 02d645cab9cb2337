package longline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	longline "github.com/longline-push/longline/client/go"
)

// A subscription that outlives connections: publish, attach, handle.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := longline.New(os.Getenv("LONGLINE_URL"), longline.Options{Token: os.Getenv("LONGLINE_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	// The subscription, unless it is there: what others set up stays.
	_, _, err = client.Subscriptions().Create(ctx, "crm-42", longline.Definition{
		Channels: []string{"acct-42"}, Types: []string{"email.*"}, Start: "earliest",
	})
	if err != nil {
		log.Fatal(err)
	}

	// The application.
	opened, err := longline.NewEvent("email.opened", map[string]string{"campaign": "autumn"})
	if err != nil {
		log.Fatal(err)
	}
	opened.Subject, opened.Key = "alice@example.com", "alice@example.com"
	if _, err := client.Publish(ctx, "acct-42", opened); err != nil {
		log.Fatal(err)
	}

	// The integration.
	sub, err := client.Attach("crm-42", longline.SubscriptionOptions{
		Handler: func(ctx context.Context, e longline.Event) error {
			var data struct{ Campaign string }
			if err := e.DataAs(&data); err != nil {
				return longline.Reject(err) // it won't get better
			}
			fmt.Println(e.Type, e.Subject, data.Campaign)
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
	// Output: email.opened alice@example.com autumn
}

// Whatever appears in a channel, as a loop.
func ExampleSubscription_Events() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := longline.New(os.Getenv("LONGLINE_URL"), longline.Options{Token: os.Getenv("LONGLINE_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	for n := range 3 {
		e, err := longline.NewEvent("tick", n)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := client.Publish(ctx, "clock", e); err != nil {
			log.Fatal(err)
		}
	}
	sub, err := client.Subscribe(longline.Selection{Channels: []string{"clock"}, Since: "earliest"}, longline.SubscriptionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range sub.Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Type, string(e.Data))
		if string(e.Data) == "2" {
			break
		}
	}
	// Output:
	// tick 0
	// tick 1
	// tick 2
}

// A CRM that takes two seconds a call, but two hundred contacts in one: batches
// in parallel, each contact's events in order.
func ExampleClient_Attach_batches() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := longline.New(os.Getenv("LONGLINE_URL"), longline.Options{Token: os.Getenv("LONGLINE_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	_, _, err = client.Subscriptions().Create(ctx, "slow-crm", longline.Definition{
		Channels: []string{"acct-43"}, Start: "earliest", Window: 1000,
	})
	if err != nil {
		log.Fatal(err)
	}
	events := make([]longline.Event, 400)
	for i := range events {
		contact := fmt.Sprintf("contact-%d@example.com", i)
		events[i] = longline.Event{Type: "email.clicked", Key: contact, Data: json.RawMessage(`{"link":3}`)}
	}
	if _, err := client.Publish(ctx, "acct-43", events...); err != nil {
		log.Fatal(err)
	}

	arrived := make(chan int, len(events))
	sub, err := client.Attach("slow-crm", longline.SubscriptionOptions{
		BatchSize:   200,
		BatchWait:   500 * time.Millisecond,
		Concurrency: 4,
		Rate:        20, // calls a second, whatever happens
		BatchHandler: func(ctx context.Context, events []longline.Event) error {
			// One call of the CRM with all of them; what it has no contact for
			// can be told apart: return longline.Reject(err, ids...).
			arrived <- len(events)
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		n := 0
		for n < len(events) {
			n += <-arrived
		}
		fmt.Println(n, "in a few calls")
		cancel()
	}()
	if err := sub.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: 400 in a few calls
}

// The same handler for the subscription and for callbacks, in one process.
func ExampleSubscription_CallbackHandler() {
	client, err := longline.New("https://push.example.com", longline.Options{Token: os.Getenv("LONGLINE_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	sub, err := client.Attach("crm-42", longline.SubscriptionOptions{
		Handler: func(ctx context.Context, e longline.Event) error { return nil },
		Secrets: []string{"whsec_YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s="}, // as the subscription's PUT returned it
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/longline", sub.CallbackHandler())
	// go http.ListenAndServe(":8000", mux)
	// err = sub.Run(ctx)
}

// Errors that end a subscription say what to do.
func ExampleError() {
	client, err := longline.New(os.Getenv("LONGLINE_URL"), longline.Options{Token: "not a token"})
	if err != nil {
		log.Fatal(err)
	}
	sub, err := client.Attach("crm-42", longline.SubscriptionOptions{
		Handler: func(context.Context, longline.Event) error { return nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	err = sub.Run(context.Background())
	switch {
	case errors.Is(err, longline.ErrUnauthorized):
		fmt.Println("get another token")
	case errors.Is(err, longline.ErrForbidden), errors.Is(err, longline.ErrNotFound):
		fmt.Println("ask for the subscription")
	case errors.Is(err, longline.ErrTakenOver):
		fmt.Println("somebody else does it now")
	}
	// Output: get another token
}
