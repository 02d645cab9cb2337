// Three-workers is a worker that shares a subscription with others of its kind,
// and, as `three-workers publish`, the application whose events they take.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	longline "github.com/longline-push/longline/client/go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) != 2 {
		log.Fatal("usage: three-workers NAME | three-workers publish")
	}
	client, err := longline.New(os.Getenv("LONGLINE_URL"), longline.Options{Token: os.Getenv("LONGLINE_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	if os.Args[1] == "publish" {
		err = publish(ctx, client)
	} else {
		err = work(ctx, client, os.Args[1], os.Stdout)
	}
	if err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// work takes this worker's share of the contacts, one event of a contact at a
// time, until ctx ends.
func work(ctx context.Context, client *longline.Client, name string, out io.Writer) error {
	// Whoever comes first makes the subscription; the others leave it as it is.
	_, _, err := client.Subscriptions().Create(ctx, "shared-crm", longline.Definition{
		Channels: []string{"acct-42"}, Start: "earliest", Group: &longline.Group{Partitions: 16},
	})
	if err != nil {
		return err
	}
	sub, err := client.Attach("shared-crm", longline.SubscriptionOptions{
		Consumer:    name, // the same name again, after a crash, takes the same share over
		Concurrency: 4,
		Handler: func(_ context.Context, e longline.Event) error {
			var data struct{ N int }
			if err := e.DataAs(&data); err != nil {
				return longline.Reject(err)
			}
			_, err := fmt.Fprintf(out, "%s: %s %d\n", name, e.Subject, data.N)
			return err
		},
		// Who keeps something per contact in memory drops here what went.
		OnPartitions: func(p longline.Partitions) {
			log.Printf("%s has %d of %d partitions, among %d workers", name, len(p.Mine), p.Of, p.Members)
		},
	})
	if err != nil {
		return err
	}
	return sub.Run(ctx)
}

// publish publishes twenty events a second, of a dozen contacts in turn, until
// ctx ends. The key is what keeps a contact's events in order.
func publish(ctx context.Context, client *longline.Client) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		e, err := longline.NewEvent("email.opened", map[string]int{"n": n / 12})
		if err != nil {
			return err
		}
		e.Subject = fmt.Sprintf("contact-%d@example.com", n%12)
		e.Key = e.Subject
		if _, err := client.Publish(ctx, "acct-42", e); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
