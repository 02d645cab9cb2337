package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// configuration is the YAML file: flags by their names, and what flags can't
// say. nil is no file.
type configuration struct {
	path      string
	flags     map[string]any
	retention []retentionRule
}

// retentionRule is an entry of retention: the first whose channels match
// counts. What it leaves out is as by default.
type retentionRule struct {
	Channels     string     `yaml:"channels" help:"Channels that the rule is for, a pattern such as acct-42 or acct.**"`
	Replay       *duration  `yaml:"replay" help:"Keep each event at least this long …"`
	ReplayEvents *int       `yaml:"replay_events" help:"… and so many of the newest, whichever is more."`
	MaxAge       *duration  `yaml:"max_age" help:"Keep what a subscription still needs up to this age …"`
	MaxBytes     *byteCount `yaml:"max_bytes" help:"… and the channel up to this size."`
	None         bool       `yaml:"none" help:"Keep nothing: live only."`

	pattern   event.Pattern
	retention broker.Retention
}

// duration is a time.Duration as text.
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no time; want e.g. 10m or 72h", text)
	}
	*d = duration(v)
	return nil
}

// configFile finds --config before anything else is parsed.
func configFile(args []string) string {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "--config" && i+1 < len(args) {
			return args[i+1]
		}
		if file, ok := strings.CutPrefix(arg, "--config="); ok {
			return file
		}
	}
	return os.Getenv("LONGLINE_CONFIG")
}

func readConfig(path string) (*configuration, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, usage("--config", "%v; want a YAML file", err)
	}
	c := &configuration{path: path}
	if err := yaml.Unmarshal(raw, &c.flags); err != nil {
		return nil, usage("--config", "%s: %s", path, oneLine(yaml.FormatError(err, false, false)))
	}
	if rules, ok := c.flags["retention"]; ok {
		delete(c.flags, "retention")
		if err := c.readRetention(rules); err != nil {
			return nil, usage("--config", "%s: retention: %s", path, oneLine(err.Error()))
		}
	}
	return c, nil
}

func (c *configuration) readRetention(rules any) error {
	raw, err := yaml.Marshal(rules)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalWithOptions(raw, &c.retention, yaml.Strict()); err != nil {
		return errors.New(yaml.FormatError(err, false, false))
	}
	for i := range c.retention {
		r := &c.retention[i]
		if r.pattern, err = event.ParsePattern(r.Channels); err != nil {
			return fmt.Errorf("channels: %w", err)
		}
		keep := broker.DefaultRetention
		keep.None = r.None
		if r.Replay != nil {
			keep.ReplayAge = time.Duration(*r.Replay)
		}
		if r.ReplayEvents != nil {
			keep.ReplayEvents = *r.ReplayEvents
		}
		if r.MaxAge != nil {
			keep.MaxAge = time.Duration(*r.MaxAge)
		}
		if r.MaxBytes != nil {
			keep.MaxBytes = int64(*r.MaxBytes)
		}
		if err := keep.Check(); err != nil {
			return fmt.Errorf("channels %s: %w", r.Channels, err)
		}
		r.retention = keep
	}
	return nil
}

// Validate implements kong.Resolver: a key that is no flag is an error.
func (c *configuration) Validate(app *kong.Application) error {
	if c == nil {
		return nil
	}
	var known []string
	for _, command := range app.Children {
		if command.Name == "serve" {
			for _, f := range command.Flags {
				known = append(known, f.Name)
			}
		}
	}
	for key := range c.flags {
		if !slices.Contains(known, key) || key == "config" || key == "check" {
			slices.Sort(known)
			return fmt.Errorf("--config %s: unknown key %q; want %s or retention", c.path, key, strings.Join(known, ", "))
		}
	}
	return nil
}

// Resolve implements kong.Resolver. The environment wins over the file.
func (c *configuration) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if c == nil {
		return nil, nil
	}
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok {
			return nil, nil
		}
	}
	switch value := c.flags[flag.Name].(type) {
	case nil:
		return nil, nil
	case []any:
		parts := make([]string, len(value))
		for i, v := range value {
			parts[i] = fmt.Sprint(v)
		}
		return strings.Join(parts, ","), nil
	case map[string]any:
		return nil, fmt.Errorf("--config %s: %s is a mapping; want a value", c.path, flag.Name)
	default:
		return fmt.Sprint(value), nil
	}
}

// retentionOf is node.Options.Retention.
func (c *configuration) retentionOf(channel string) broker.Retention {
	if c != nil {
		for _, r := range c.retention {
			if r.pattern.Match(channel) {
				return r.retention
			}
		}
	}
	return broker.DefaultRetention
}
