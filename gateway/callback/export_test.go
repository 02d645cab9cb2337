package callback

// What tests look at from inside.
var (
	ParseRetryAfter = parseRetryAfter
	ParseRejected   = parseRejected
	HeaderText      = headerText
	Backoff         = backoff
)
