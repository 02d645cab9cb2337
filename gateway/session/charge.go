package session

import "github.com/longline-push/longline/gateway/quota"

// A session is charged for what it makes the node hold: channels for as long as
// it has them, answers for as long as its peer doesn't take them.

// chargeLocked takes on a message that waits, unless that is too much. One
// alone may have any size: it was asked for once.
func (s *Session) chargeLocked(bytes int) bool {
	if s.tokenLocked().TakeUnread(s.unread, int64(bytes)) {
		s.unread += int64(bytes)
		return true
	}
	return len(s.control) == 0
}

// settleLocked gives back what was charged for messages: none waits any more.
func (s *Session) settleLocked() {
	if s.unread > 0 {
		s.token.Unread.Give(s.unread)
		s.unread = 0
	}
}

func (s *Session) tokenLocked() *quota.Token {
	if s.token == nil {
		s.token = s.hub.opts.Budget.Token(s.grant)
	}
	return s.token
}

func (s *Session) takeChannelsLocked(n int) error { return s.tokenLocked().Channels(s.grant, n) }

func (s *Session) giveChannelsLocked(n int) {
	if n > 0 {
		s.tokenLocked().GiveChannels(n)
	}
}
