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

// holdChannelsLocked charges the session for n channels in place of those that
// it was charged for. An error says that this is too many; fewer never are.
func (s *Session) holdChannelsLocked(n int) error {
	switch more := n - int(s.channelsHeld); {
	case more > 0:
		if err := s.tokenLocked().Channels(s.grant, more); err != nil {
			return err
		}
	case more < 0:
		s.tokenLocked().GiveChannels(-more)
	}
	s.channelsHeld = int32(n)
	return nil
}
