package durable

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/longline-push/longline/gateway/shape"
	"github.com/longline-push/longline/gateway/webhook"
)

// check names the first field that is wrong, without the leading "callback.".
func (c *Callback) check(window int) error {
	if err := checkURL(c.URL); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if c.Mode != Fallback && c.Mode != Always {
		return fmt.Errorf("mode is %q, want fallback or always", c.Mode)
	}
	if c.Order != ByChannel && c.Order != ByKey {
		return fmt.Errorf("order is %q, want channel or key", c.Order)
	}
	if c.Concurrency < 1 || c.Concurrency > MaxConcurrency {
		return fmt.Errorf("concurrency is %d, want 1 to %d", c.Concurrency, MaxConcurrency)
	}
	if c.Concurrency > 1 && c.Order == ByChannel {
		return fmt.Errorf("concurrency is %d, but order \"channel\" means one call at a time; want order \"key\" or concurrency 1", c.Concurrency)
	}
	if !(c.Rate >= 0 && c.Rate <= MaxRate) {
		return fmt.Errorf("rate is %v, want 0 (none) to %d calls a second", c.Rate, MaxRate)
	}
	if c.Rate > 0 && c.Rate < 0.001 {
		return fmt.Errorf("rate is %v, want 0.001 calls a second at least", c.Rate)
	}
	if c.Batch.MaxEvents < 1 || c.Batch.MaxEvents > MaxBatch {
		return fmt.Errorf("batch.max_events is %d, want 1 to %d", c.Batch.MaxEvents, MaxBatch)
	}
	if n := c.inFlight(); n > MaxWindow {
		return fmt.Errorf("concurrency × batch.max_events is %d × %d = %d events in flight, want %d (the largest window) at most", c.Concurrency, c.Batch.MaxEvents, n, MaxWindow)
	} else if n > window {
		return fmt.Errorf("concurrency × batch.max_events is %d × %d = %d events in flight, but window is %d; want window %d at least, or none, which is %d then",
			c.Concurrency, c.Batch.MaxEvents, n, window, n, min(max(minWindow, 2*n), MaxWindow))
	}
	for _, d := range []struct {
		name      string
		got       Duration
		low, high time.Duration
	}{
		{"grace", c.Grace, 0, MaxGrace},
		{"batch.max_wait", c.Batch.MaxWait, 0, MaxBatchWait},
		{"timeout", c.Timeout, 100 * time.Millisecond, MaxTimeout},
	} {
		if time.Duration(d.got) < d.low || time.Duration(d.got) > d.high {
			return fmt.Errorf("%s is %v, want %v to %v", d.name, time.Duration(d.got), d.low, d.high)
		}
	}
	if c.Secret != "" {
		if _, err := webhook.ParseSecret(c.Secret); err != nil {
			return fmt.Errorf("secret: %w", err)
		}
	}
	if err := checkHeaders(c.Headers); err != nil {
		return err
	}
	if _, err := c.Shape(); err != nil {
		return err
	}
	if c.Auth == nil {
		return nil
	}
	if err := c.Auth.Check(); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	for name := range c.Headers {
		if strings.EqualFold(name, "Authorization") && (c.Auth.OAuth2 != nil || c.Auth.Authorization() != "") {
			return fmt.Errorf("headers: %q is what auth sets, want one of them", name)
		}
	}
	return nil
}

// Shape is what the callback makes of its requests, compiled; nil if it asks
// for nothing.
func (c *Callback) Shape() (*shape.Shape, error) {
	return shape.Compile(c.Spec, c.URL, c.Batch.MaxEvents > 1)
}

// inFlight is how many events may be on their way at once.
func (c *Callback) inFlight() int { return c.Concurrency * c.Batch.MaxEvents }

func checkURL(text string) error {
	if len(text) > MaxURL {
		return fmt.Errorf("%d bytes, want %d at most", len(text), MaxURL)
	}
	if err := shape.CheckURL(text); err != nil {
		return err
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("scheme is %q, want https or http", u.Scheme)
	case u.Hostname() == "":
		return errors.New("has no host")
	case u.User != nil:
		return errors.New("has a user name or password, want them in headers, which never come back")
	case u.Fragment != "":
		return errors.New("has a fragment, which is never sent")
	}
	return nil
}

func checkHeaders(headers map[string]string) error {
	if len(headers) > MaxHeaders {
		return fmt.Errorf("headers has %d, want %d at most", len(headers), MaxHeaders)
	}
	size := 0
	for name, value := range headers {
		if err := shape.CheckHeaderName(name); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
		if !headerValue(value) {
			return fmt.Errorf("headers: the value of %q has a line break or control character", name)
		}
		size += len(name) + len(value)
	}
	if size > MaxHeaderBytes {
		return fmt.Errorf("headers has %d bytes, want %d at most", size, MaxHeaderBytes)
	}
	return nil
}

// headerValue tells whether s can stand on a header line: visible text, spaces
// and tabs.
func headerValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
