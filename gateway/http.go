package gateway

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/longline-push/longline/broker"
)

// Broker is what a node needs of one.
type Broker interface {
	broker.Log
	broker.Tail
	broker.Durable
	// Close ends it; what was answered before is kept.
	Close() error
}

// HTTPServer makes a server that outlives slow and silent peers. Live
// connections leave it: its time-outs are for requests.
func HTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second, // who sends a header byte by byte ends here
		ReadTimeout:       30 * time.Second, // and a body
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}
