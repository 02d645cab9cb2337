package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"
)

// contextCmd keeps where gateways are and which token they are shown, by name.
type contextCmd struct {
	Add  contextAddCmd  `cmd:"" help:"Keep a gateway and token under a name, and use them."`
	Use  contextUseCmd  `cmd:"" help:"Use a context from now on."`
	List contextListCmd `cmd:"" help:"Print them; the one in use has a star."`
	Rm   contextRmCmd   `cmd:"" help:"Forget one."`
}

// contexts is the file. It holds no token, only where tokens are.
type contexts struct {
	Current  string                 `yaml:"current,omitempty"`
	Contexts map[string]keptContext `yaml:"contexts"`
}

type keptContext struct {
	URL       string `yaml:"url"`
	TokenFile string `yaml:"token_file,omitempty"`
}

func contextsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the folder for contexts: %w", err)
	}
	return filepath.Join(dir, "longline", "contexts.yaml"), nil
}

// readContexts returns no contexts where there is no file, or no place for one.
func readContexts() (c contexts, err error) {
	c.Contexts = make(map[string]keptContext)
	file, err := contextsFile()
	if err != nil {
		return c, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = yaml.UnmarshalWithOptions(text, &c, yaml.Strict())
	}
	if err != nil {
		return c, usage("--context", "read contexts: %s: %s", file, oneLine(err.Error()))
	}
	return c, nil
}

func (c *contexts) write() error {
	file, err := contextsFile()
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(c)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	return nil
}

func (c *contexts) find(name string) (keptContext, error) {
	kept, ok := c.Contexts[name]
	if !ok {
		return kept, usage("--context", "there is no context %q; want one of %q, or longline context add", name, slices.Sorted(maps.Keys(c.Contexts)))
	}
	return kept, nil
}

// contextOf returns the context of that name; of none, the one in use, if any.
func contextOf(name string) (keptContext, error) {
	c, err := readContexts()
	if err != nil {
		return keptContext{}, err
	}
	if name == "" {
		name = c.Current
	}
	if name == "" {
		return keptContext{}, nil
	}
	return c.find(name)
}

type contextAddCmd struct {
	Name      string `arg:"" help:"The name, e.g. prod."`
	URL       string `name:"url" required:"" placeholder:"URL" help:"The gateway."`
	TokenFile string `name:"token-file" placeholder:"FILE" help:"A file that holds the token to show it."`
}

func (c *contextAddCmd) Run(*environment) error {
	if _, err := (&clientFlags{URL: c.URL, Token: "-", Transport: "auto"}).client(&environment{}); err != nil {
		return err
	}
	all, err := readContexts()
	if err != nil {
		return err
	}
	if c.TokenFile != "" {
		if _, err := secretOf("--token", "", c.TokenFile); err != nil {
			return err
		}
		if c.TokenFile, err = filepath.Abs(c.TokenFile); err != nil {
			return err
		}
	}
	all.Contexts[c.Name], all.Current = keptContext{c.URL, c.TokenFile}, c.Name
	return all.write()
}

type contextUseCmd struct {
	Name string `arg:"" help:"Its name."`
}

func (c *contextUseCmd) Run(*environment) error {
	all, err := readContexts()
	if err != nil {
		return err
	}
	if _, err := all.find(c.Name); err != nil {
		return err
	}
	all.Current = c.Name
	return all.write()
}

type contextListCmd struct{}

func (c *contextListCmd) Run(env *environment) error {
	all, err := readContexts()
	if err != nil {
		return err
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(all.Contexts)) {
		mark := "  "
		if name == all.Current {
			mark = "* "
		}
		pairs = append(pairs, mark+name, all.Contexts[name].URL+" "+all.Contexts[name].TokenFile)
	}
	return facts(env, pairs...)
}

type contextRmCmd struct {
	Name string `arg:"" help:"Its name."`
}

func (c *contextRmCmd) Run(*environment) error {
	all, err := readContexts()
	if err != nil {
		return err
	}
	if _, err := all.find(c.Name); err != nil {
		return err
	}
	delete(all.Contexts, c.Name)
	if all.Current == c.Name {
		all.Current = ""
	}
	return all.write()
}
