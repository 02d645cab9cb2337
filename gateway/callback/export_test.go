package callback

// What tests look at from inside.
var (
	ParseRetryAfter = parseRetryAfter
	ParseRejected   = parseRejected
	Backoff         = backoff
)
