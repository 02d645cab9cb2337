package webhook

// Refuses tells whether a status refuses the event that was sent, rather than
// say that the endpoint is in trouble or gone.
func Refuses(status int) bool {
	switch status {
	case 401, 403, 404, 405, 407, 408, 410, 425, 429:
		return false
	}
	return status/100 == 4
}
