package callback

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Acknowledged positions are committed in batches: losing a commit means a
// redelivery, never a loss.
const (
	commitWait  = 50 * time.Millisecond
	maxCommit   = 100 // events, or as many as the window
	commitAgain = time.Second
	flushWithin = 2 * time.Second
)

// committer is when and how far a worker's position is committed. It is under
// the worker's lock, but for running.
type committer struct {
	at      event.Position // committed
	open    int            // events done since
	timer   *time.Timer    // a commit is due
	busy    bool           // a commit is under way
	more    bool           // and something happened since it began
	running sync.WaitGroup
}

// behind tells whether so much is done but not committed that no more should
// be: it would come again if this node died, and the next owner announces two
// windows.
func (c *committer) behind(window int) bool { return c.open >= window }

// unsetLocked calls off a commit that is due.
func (c *committer) unsetLocked() {
	if c.timer != nil && c.timer.Stop() {
		c.timer = nil
		c.running.Done()
	}
}

// commitSoonLocked notes that so many events more are done.
func (w *Worker) commitSoonLocked(n int) {
	c, most := &w.commits, min(maxCommit, w.sub.Window)
	c.open += n
	switch {
	case c.busy:
		c.more = true
	case c.timer == nil && c.open >= most:
		w.commitInLocked(0)
	case c.timer == nil:
		w.commitInLocked(commitWait)
	case c.open >= most && c.open-n < most:
		if c.timer.Stop() {
			c.timer.Reset(0)
		}
	}
}

func (w *Worker) commitInLocked(d time.Duration) {
	c := &w.commits
	c.running.Add(1)
	c.timer = time.AfterFunc(d, func() {
		defer c.running.Done()
		w.mu.Lock()
		c.timer = nil
		if c.busy { // a flush does it
			w.mu.Unlock()
			return
		}
		w.commitLocked(w.ctx)
		w.mu.Unlock()
		w.nudge()
	})
}

// commitLocked commits what is done now, and sees to it that what is done
// meanwhile, or fails to be committed, is so later. It unlocks to do it.
func (w *Worker) commitLocked(ctx context.Context) bool {
	c := &w.commits
	to, n := w.q.position(), c.open
	if slices.Equal(to, c.at) {
		// Done beyond the contiguous prefix, which is bounded by the window.
		c.open = 0
		return true
	}
	c.busy, c.more = true, false
	w.mu.Unlock()
	err := w.advance(ctx, to)
	if errors.Is(err, broker.ErrFenced) {
		w.finishAs(Fenced, 0)
	} else if err != nil && ctx.Err() == nil {
		w.e.opt.Logger.Warn("commit acknowledged events of callback", "subscription", w.sub.Name, "error", err)
	}
	w.mu.Lock()
	c.busy = false
	if err == nil {
		c.at, c.open = to, c.open-n
		if c.more && w.over == working {
			w.commitSoonLocked(0)
		}
	} else if w.over == working {
		w.commitInLocked(commitAgain)
	}
	return err == nil
}

func (w *Worker) advance(ctx context.Context, to event.Position) (err error) {
	defer w.e.opt.Guard.Contain("commit", func() { err = errPanicked })
	return w.progress.Advance(ctx, to)
}

// flush commits all that is done, and tells whether it could.
func (w *Worker) flush() bool {
	c := &w.commits
	w.mu.Lock()
	c.unsetLocked()
	w.mu.Unlock()
	c.running.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	c.unsetLocked() // one that ended may have set it anew
	if w.over == Fenced || w.over == Halted {
		return false
	}
	ctx, cancel := context.WithTimeout(w.ctx, flushWithin)
	defer cancel()
	return w.commitLocked(ctx)
}
