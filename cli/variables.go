package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// configuring are the flags of commands other than serve that say where and
// who, not what to do; they and all of serve's can be given by the
// environment. What a command does is on its command line alone, so that no
// variable that happens to be there changes it.
var configuring = []string{
	"url", "token", "token-file", "context", "transport",
	"broker", "jwt-secret", "jwt-secret-file", "jwt-issuer", "jwt-audience",
}

// variables gives configuring flags their variables: --listen LONGLINE_LISTEN.
func variables() kong.Option {
	return kong.PostBuild(func(k *kong.Kong) error {
		var name func(node *kong.Node)
		name = func(node *kong.Node) {
			for _, flag := range node.Flags {
				if flag.Name != "help" && flag.Name != "check" && (node.Name == "serve" || slices.Contains(configuring, flag.Name)) {
					flag.Envs = []string{variable(flag.Name)}
					flag.Tag.Envs = flag.Envs
				}
			}
			for _, child := range node.Children {
				name(child)
			}
		}
		name(k.Model.Node)
		return nil
	})
}

// variable is the name of a flag's environment variable.
func variable(flag string) string {
	return "LONGLINE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// describe is what --help says of a flag: what it is, what it is if it isn't
// given, and its variable.
func describe(v *kong.Value) string {
	var more []string
	if v.HasDefault && v.Default != "" && !v.IsBool() && v.Enum == "" && !strings.Contains(v.Help, v.Default+" for ") {
		more = append(more, v.Default)
	}
	for _, name := range v.Tag.Envs {
		more = append(more, "$"+name)
	}
	if len(more) == 0 {
		return v.Help
	}
	return fmt.Sprintf("%s [%s]", v.Help, strings.Join(more, ", "))
}
