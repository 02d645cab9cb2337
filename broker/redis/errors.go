package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/longline-push/longline/broker"
)

// errConnect marks an error from before anything was sent.
var errConnect = errors.New("connect to redis")

// unavailable wraps what went wrong so that callers see ErrUnavailable and
// people see the cause.
func unavailable(verb string, cause error) error {
	switch {
	case errors.Is(cause, broker.ErrClosed), errors.Is(cause, broker.ErrUnavailable),
		errors.Is(cause, broker.ErrNotFound), errors.Is(cause, context.Canceled):
		return fmt.Errorf("%s: %w", verb, cause)
	}
	return fmt.Errorf("%s: %w: %w", verb, broker.ErrUnavailable, cause)
}

// reply is what to do about an answer.
type reply int

const (
	done      reply = iota // it is the answer, good or bad
	elsewhere              // the bucket is now at another server
	asking                 // this key is, for once, at another server
	reload                 // the server does not know the script
	later                  // try again: nothing happened
	lost                   // the connection failed: it may have happened
	unsent                 // no connection: nothing happened
)

// judge tells what to do about err, and the address it names.
func judge(err error) (reply, string) {
	var said goredis.Error
	switch {
	case err == nil, errors.Is(err, goredis.Nil):
		return done, ""
	case errors.Is(err, errConnect), isDial(err):
		return unsent, ""
	case !errors.As(err, &said):
		return lost, ""
	}
	text := said.Error()
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "MOVED", "ASK":
		_, addr, _ := strings.Cut(rest, " ")
		if word == "ASK" {
			return asking, addr
		}
		return elsewhere, addr
	case "NOSCRIPT":
		return reload, ""
	case "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "BUSY":
		return later, ""
	}
	return done, ""
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, goredis.ErrPoolTimeout)
}

// pause is how long to wait before the nth try, jittered.
func pause(n int) time.Duration {
	return jitter(min(10*time.Millisecond<<min(n, 6), 200*time.Millisecond))
}
