package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/longline-push/longline/node"
)

// backupCmd copies the data of an embedded gateway while it runs.
type backupCmd struct {
	Dir string `arg:"" help:"Where to put it: a directory that doesn't exist yet."`

	clientFlags `embed:""`
}

func (c *backupCmd) Run(env *environment) error {
	if _, err := os.Lstat(c.Dir); err == nil {
		return usage("<dir>", "%s exists; want a new directory", c.Dir)
	}
	if err := c.settle(); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(env.ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+"/v1/backup", nil)
	if err != nil {
		return usage("--url", "%q; want http://HOST[:PORT] or https://HOST[:PORT]", c.URL)
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("back up: %w; --url, LONGLINE_URL or --context say where the gateway is", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var problem struct{ Code, Detail string }
		text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if json.Unmarshal(text, &problem) != nil || problem.Code == "" {
			return fmt.Errorf("back up: the gateway answered %s", res.Status)
		}
		return fmt.Errorf("back up: %s: %s (it takes an admin's token)", problem.Code, problem.Detail)
	}
	in := &counted{r: res.Body, env: env, next: time.Now().Add(time.Second)}
	if err := node.Unpack(in, c.Dir); err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.stderr, "%s: %d MiB; start a gateway on it with --broker embedded:%s. Keys are not in it: jwt.key and secrets.key of the original, if it has them, are to be kept apart.\n",
		c.Dir, in.n>>20, c.Dir)
	return err
}

// counted tells on a terminal how far a backup is.
type counted struct {
	r    io.Reader
	env  *environment
	n    int64
	next time.Time
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	if now := time.Now(); now.After(c.next) && isTerminal(c.env.stderr) {
		c.next = now.Add(time.Second)
		fmt.Fprintf(c.env.stderr, "\r%d MiB ", c.n>>20)
	}
	return n, err
}

// checkCmd reads a data directory.
type checkCmd struct {
	Dir  string `arg:"" help:"A data directory or a backup; no gateway may use it."`
	JSON bool   `name:"json" help:"Print JSON on a terminal too."`
}

func (c *checkCmd) Run(env *environment) error {
	r, err := node.CheckData(env.ctx, c.Dir)
	if err != nil {
		return err
	}
	if env.people(c.JSON) {
		state := "whole"
		if r.Restored {
			state = "whole, a backup that no gateway was started on yet"
		}
		if len(r.Damaged) > 0 {
			state = "damaged: " + strings.Join(r.Damaged, "; ")
		}
		err = facts(env, "state", state, "format", fmt.Sprint(r.Format), "channels", fmt.Sprint(r.Channels), "events", fmt.Sprint(r.Events),
			"bytes", fmt.Sprint(r.Bytes), "subscriptions", fmt.Sprint(r.Subscriptions), "dead letters", fmt.Sprint(r.DeadLetters))
	} else {
		var text []byte
		if text, err = json.Marshal(r); err == nil {
			err = printLine(env, text)
		}
	}
	if err == nil && len(r.Damaged) > 0 {
		err = errors.New("the data is damaged")
	}
	return err
}
