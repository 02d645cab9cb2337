package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// script is a process of Node's with the JavaScript SDK, by WebSocket or by SSE in
// turn, which is killed when ctx ends.
func (w *world) script(ctx context.Context, book *oracle.Book, consumer string, number int) error {
	args := []string{"testdata/member.mjs", "http://" + w.front.Addr, book.Name, consumer}
	if number%2 == 0 {
		args = append([]string{"--no-warnings", "--experimental-websocket"}, args...)
	}
	cmd := exec.CommandContext(ctx, "node", args...)
	cmd.Env = append(cmd.Environ(), "TOKEN="+adminToken())
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	facts := bufio.NewScanner(out)
	facts.Buffer(nil, 1<<20)
	for facts.Scan() {
		var f struct {
			ID, Type, PartitionKey, Cursor string
			Announced                      bool
			Done                           string
			From, To                       string
			Broken                         string
		}
		if json.Unmarshal(facts.Bytes(), &f) != nil {
			continue // the half of a line, of one that was killed
		}
		switch {
		case f.Broken != "":
			book.Break("the script %s#%d gave up: %s", consumer, number, f.Broken)
		case f.Done != "":
			book.Done(f.Done)
		case f.From != "":
			book.Gap(f.From, f.To)
		default:
			c, err := event.ParseCursor(f.Cursor)
			if err != nil {
				book.Break("the script's event: %v", err)
				continue
			}
			book.Given(oracle.Delivery{ID: f.ID, Type: f.Type, Key: f.PartitionKey, Cursor: c, By: fmt.Sprintf("%s#%d", consumer, number), Announced: f.Announced})
		}
	}
	if err := cmd.Wait(); ctx.Err() == nil {
		return fmt.Errorf("the script ended: %v", err)
	}
	return nil
}
