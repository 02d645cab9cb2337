package longline

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// tolerance is how far a callback's timestamp may be from our clock.
	tolerance = 5 * time.Minute
	// maxCallback is the largest callback body taken: 1000 events or so.
	maxCallback = 16 << 20
	testType    = "longline.test"
)

func parseSecrets(texts []string) ([][]byte, error) {
	var secrets [][]byte
	for _, text := range texts {
		secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
		if err != nil || len(secret) == 0 {
			return nil, &Error{Code: ErrBadRequest.Code, Detail: `a secret is not base64, want "whsec_…"`}
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// VerifyCallback checks a callback's headers and body by Standard Webhooks:
// nil if one of the secrets ("whsec_…") signed it within the last five
// minutes; else ErrSignature, ErrTimestamp, or ErrBadRequest for a secret that
// is none. Use it where CallbackHandler doesn't fit.
func VerifyCallback(h http.Header, body []byte, secrets ...string) error {
	keys, err := parseSecrets(secrets)
	if err != nil {
		return err
	}
	return verify(h, body, keys, time.Now())
}

func verify(h http.Header, body []byte, secrets [][]byte, now time.Time) error {
	id, stamp, signatures := h.Get("webhook-id"), h.Get("webhook-timestamp"), h.Get("webhook-signature")
	if id == "" || stamp == "" || signatures == "" {
		return &Error{Code: ErrSignature.Code, Detail: "webhook-id, webhook-timestamp and webhook-signature are needed"}
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return &Error{Code: ErrTimestamp.Code, Detail: "webhook-timestamp is not a number of seconds"}
	}
	// In seconds, so that no timestamp can overflow a Duration.
	if off := now.Unix() - seconds; off > int64(tolerance/time.Second) || off < -int64(tolerance/time.Second) {
		return &Error{Code: ErrTimestamp.Code, Detail: "webhook-timestamp is more than 5 minutes off"}
	}
	ok := false
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		want := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		for signature := range strings.SplitSeq(signatures, " ") {
			// In constant time, and no way out early.
			ok = hmac.Equal([]byte(signature), want) || ok
		}
	}
	if !ok {
		return &Error{Code: ErrSignature.Code, Detail: "none of the secrets made this signature"}
	}
	return nil
}

// CallbackHandler takes the subscription's callbacks and has the subscription's
// handler handle their events, within the subscription's Concurrency and Rate, keys
// in order. It works whether Run is running or not. It needs
// SubscriptionOptions.Secrets.
//
// It answers 204 when all is handled; 401 to what isn't signed well; 422 to
// an event that was rejected, for batches 200 with the ids; 500, or 503 with
// Retry-After, if the handler failed, and the gateway will try again. "longline.test" events are
// answered without the handler.
func (s *Subscription) CallbackHandler() http.Handler { return http.HandlerFunc(s.serveCallback) }

func (s *Subscription) serveCallback(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "callbacks are posted", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCallback))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			http.Error(w, "callback is too large", http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, "callback can't be read", http.StatusBadRequest)
		return
	}
	if err := verify(r.Header, body, s.secrets, time.Now()); err != nil {
		s.client.log.Warn("callback refused", "error", err)
		// Not 400, which would have the events dead-lettered.
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	events, batch, err := parseCallback(r.Header.Get("Content-Type"), body)
	if err != nil {
		s.client.log.Warn("callback refused", "error", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	again := r.Header.Get("longline-redelivery") == "true"
	if n, err := strconv.Atoi(r.Header.Get("longline-attempt")); err == nil && n > 1 {
		again = true // our answer may have been lost
	}
	rejected, refusal, err := s.process(r.Context(), events, again, r.Header.Get("longline-replay") != "")
	switch {
	case err != nil:
		// What went wrong is for our log, not for theirs.
		s.client.log.Warn("callback not handled", "events", len(events), "error", err)
		status := http.StatusInternalServerError
		if wait := waitOf(err); wait > 0 {
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		}
		http.Error(w, "not handled, try again", status)
	case len(rejected) > 0 && batch:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string][]string{"rejected": rejected}) // the peer may be gone
	case len(rejected) > 0:
		http.Error(w, refusal.Error(), http.StatusUnprocessableEntity)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func parseCallback(contentType string, body []byte) (events []Event, batch bool, err error) {
	kind, _, _ := mime.ParseMediaType(contentType)
	if kind == "application/cloudevents-batch+json" {
		events, err = parseEvents(body)
		return events, true, err
	}
	e, err := parseEvent(body)
	return []Event{e}, false, err
}

// process has the events handled and waits for it.
func (s *Subscription) process(ctx context.Context, events []Event, again, replay bool) (rejected []string, refusal, err error) {
	verdicts := make([]chan verdict, len(events))
	for i, e := range events {
		verdicts[i] = make(chan verdict, 1)
		if e.Type == testType {
			verdicts[i] <- verdict{handled: true}
			continue
		}
		s.dispatcher.addCall(e, again, replay, verdicts[i])
	}
	for i, e := range events {
		select {
		case v := <-verdicts[i]:
			if v.failed != nil && err == nil {
				err = v.failed
			}
			if v.refused != nil {
				rejected, refusal = append(rejected, e.ID), v.refused
			}
		case <-ctx.Done():
			// The gateway gave up. What is handled meanwhile will be known
			// when the event comes again.
			return nil, nil, context.Cause(ctx)
		}
	}
	return rejected, refusal, err
}
