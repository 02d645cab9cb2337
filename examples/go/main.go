// Go notes every event of a subscription, as a CRM's integration would.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	longline "github.com/longline-push/longline/client/go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// visit is the data of the events that are taken here.
type visit struct{ N int }

func run(ctx context.Context) error {
	client, err := longline.New(os.Getenv("LONGLINE_URL"), longline.Options{Token: os.Getenv("LONGLINE_TOKEN")})
	if err != nil {
		return err
	}
	_, _, err = client.Subscriptions().Create(ctx, "example-go", longline.Definition{
		Channels: []string{"acct-42"}, Types: []string{"email.*"}, Start: "earliest",
	})
	if err != nil {
		return err
	}
	sub, err := longline.Attach(client, "example-go", note, longline.SubscriptionOptions{Concurrency: 8})
	if err != nil {
		return err
	}
	return sub.Run(ctx) // until ctx ends; then it acknowledges what is done
}

func note(_ context.Context, e longline.Event, v visit) error {
	if e.Subject == "" {
		return longline.Reject(errors.New("whose contact is this?"))
	}
	_, err := fmt.Printf("%s: %s %d\n", e.Subject, e.Type, v.N)
	return err
}
