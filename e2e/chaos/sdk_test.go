package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	longline "github.com/longline-push/longline/client/go"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// sdk is a process with the Go SDK: its handler fails now and then, is slow now
// and then, and refuses some events for good.
func (w *world) sdk(ctx context.Context, book *oracle.Book, consumer string, number int) error {
	client, err := longline.New("http://"+w.front.Addr, longline.Options{Token: adminToken(), Logger: slog.New(slog.DiscardHandler),
		MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second})
	if err != nil {
		return err
	}
	sub, err := client.Attach(book.Name, longline.SubscriptionOptions{
		Consumer: consumer, Concurrency: 4, Grace: time.Second, Remember: 1,
		OnGap: func(g longline.Gap) { book.Gap(g.From, g.To) },
		Handler: func(ctx context.Context, e longline.Event) error {
			c, err := event.ParseCursor(e.Cursor)
			if err != nil {
				book.Break("the SDK's event: %v", err)
				return err
			}
			d := longline.DeliveryOf(ctx)
			book.Given(oracle.Delivery{ID: e.ID, Type: e.Type, Key: e.Key, Cursor: c, By: fmt.Sprintf("%s#%d", consumer, number),
				Announced: d.Redelivered || d.Attempt > 1})
			switch w.random(400) {
			case 0:
				return errors.New("the handler fails")
			case 1:
				pause(ctx, time.Second)
			}
			if e.Type == kinds[1] && w.random(500) == 0 {
				return longline.Reject(errors.New("not to be processed"))
			}
			book.Done(e.ID)
			return nil
		},
	})
	if err != nil {
		return err
	}
	if err := sub.Run(ctx); ctx.Err() == nil {
		return fmt.Errorf("the SDK gave up: %w", err)
	}
	return nil
}
