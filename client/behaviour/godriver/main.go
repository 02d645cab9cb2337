// Command godriver is the behaviour suite's driver of the Go SDK: orders on
// stdin, what happens on stdout, one JSON object a line; see docs/protocol.md,
// "For client authors". The argument, if any, is the transport.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	longline "github.com/longline-push/longline/client/go"
)

type order struct {
	Do, URL, Subscription, Consumer, Since, Secret string
	TokenFile                                      string `json:"token_file"`
	Channels                                       []string
	Concurrency                                    int
}

var said sync.Mutex

func say(told string, more map[string]any) {
	said.Lock()
	defer said.Unlock()
	if more == nil {
		more = make(map[string]any)
	}
	more["told"] = told
	json.NewEncoder(os.Stdout).Encode(more) // whom we talk to is there
}

func handle(ctx context.Context, e longline.Event) error {
	about := longline.DeliveryOf(ctx)
	say("begin", map[string]any{"id": e.ID, "attempt": about.Attempt, "redelivered": about.Redelivered, "transport": about.Transport})
	var what struct {
		Do        string
		Times, MS int
	}
	var err error
	outcome := "done"
	switch _ = e.DataAs(&what); {
	case what.Do == "slow":
		time.Sleep(time.Duration(what.MS) * time.Millisecond)
	case what.Do == "reject":
		outcome, err = "rejected", longline.Reject(errors.New("rejected by the story"))
	case what.Do == "fail" && about.Attempt <= what.Times:
		outcome, err = "failed", errors.New("failed by the story")
	}
	say("end", map[string]any{"id": e.ID, "outcome": outcome})
	return err
}

func (o order) options() longline.SubscriptionOptions {
	options := longline.SubscriptionOptions{
		Handler: handle, Concurrency: o.Concurrency, Consumer: o.Consumer, Retry: longline.Retry{Min: 50 * time.Millisecond},
		OnState:      func(s longline.State) { say("state", map[string]any{"phase": s.Phase}) },
		OnGap:        func(g longline.Gap) { say("gap", map[string]any{"reason": g.Reason}) },
		OnReject:     func(e longline.Event, _ error) { say("reject", map[string]any{"id": e.ID}) },
		OnPartitions: func(p longline.Partitions) { say("partitions", map[string]any{"partitions": p.Mine}) },
	}
	if o.Secret != "" {
		options.Secrets = []string{o.Secret}
	}
	return options
}

func main() {
	var subscription *longline.Subscription
	ctx, stop := context.WithCancel(context.Background())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			panic(err)
		}
		if o.Do == "close" {
			stop()
			continue
		}
		transport := longline.Auto
		if len(os.Args) > 1 {
			transport = longline.Transport(os.Args[1])
		}
		client, err := longline.New(o.URL, longline.Options{
			Transport: transport, Logger: slog.New(slog.DiscardHandler), MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second,
			TokenFunc: func(context.Context) (string, error) {
				b, err := os.ReadFile(o.TokenFile)
				return string(b), err
			},
		})
		if err == nil && o.Do == "subscribe" {
			subscription, err = client.Subscribe(longline.Selection{Channels: o.Channels, Since: o.Since}, o.options())
		} else if err == nil && subscription == nil {
			subscription, err = client.Attach(o.Subscription, o.options())
		}
		if err != nil {
			panic(err)
		}
		if o.Do == "serve" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				panic(err)
			}
			go http.Serve(l, subscription.CallbackHandler()) // until the process ends
			say("serving", map[string]any{"url": "http://" + l.Addr().String() + "/"})
			continue
		}
		go func() {
			code := ""
			var e *longline.Error
			if err := subscription.Run(ctx); errors.As(err, &e) {
				code = e.Code
			} else if err != nil {
				code = err.Error()
			}
			say("ended", map[string]any{"code": code})
		}()
	}
}
