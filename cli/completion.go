package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCmd prints a script that completes commands and flags, e.g.
// source <(longline completion bash).
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (c *completionCmd) Run(env *environment) error {
	var script string
	switch c.Shell {
	case "fish":
		script = fish(env.model)
	case "zsh":
		script = "autoload -U +X bashcompinit && bashcompinit\n" + bash(env.model)
	default:
		script = bash(env.model)
	}
	_, err := fmt.Fprint(env.stdout, script)
	return err
}

// walk calls visit for each command, with the words that lead to it.
func walk(node *kong.Node, words string, visit func(words string, node *kong.Node)) {
	visit(words, node)
	for _, child := range node.Children {
		if child.Type == kong.CommandNode && !child.Hidden {
			walk(child, strings.TrimSpace(words+" "+child.Name), visit)
		}
	}
}

// choices are the words that may follow a command: commands, then flags.
func choices(node *kong.Node) (words []string) {
	for _, child := range node.Children {
		words = append(words, child.Name)
	}
	if d := node.DefaultCmd; d != nil { // its flags can be given without its name
		node = d
	}
	for _, flag := range node.Flags {
		words = append(words, "--"+flag.Name)
	}
	return append(words, "--help")
}

func bash(root *kong.Node) string {
	var b strings.Builder
	b.WriteString(`_longline() {
  local current=${COMP_WORDS[COMP_CWORD]} command= word choices
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    [[ $word == -* ]] && continue
    case "$command $word" in
`)
	var cases strings.Builder
	walk(root, "", func(words string, node *kong.Node) {
		if words != "" {
			parent, last := "", words
			if i := strings.LastIndexByte(words, ' '); i >= 0 {
				parent, last = words[:i], words[i+1:]
			}
			fmt.Fprintf(&b, "      %q) command=%q ;;\n", parent+" "+last, words)
		}
		fmt.Fprintf(&cases, "    %q) choices=%q ;;\n", words, strings.Join(choices(node), " "))
	})
	b.WriteString("    esac\n  done\n  case $command in\n")
	b.WriteString(cases.String())
	b.WriteString(`  esac
  COMPREPLY=($(compgen -W "$choices" -- "$current"))
}
complete -o default -F _longline longline
`)
	return b.String()
}

func fish(root *kong.Node) string {
	var b strings.Builder
	quote := func(s string) string {
		return "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", `\'`) + "'"
	}
	b.WriteString("complete -c longline -f\n")
	walk(root, "", func(words string, node *kong.Node) {
		condition := "__fish_use_subcommand"
		if words != "" {
			seen := strings.Fields(words)
			for i, word := range seen {
				seen[i] = "__fish_seen_subcommand_from " + word
			}
			condition = strings.Join(seen, "; and ")
		}
		for _, child := range node.Children {
			fmt.Fprintf(&b, "complete -c longline -n %s -a %s -d %s\n", quote(condition), child.Name, quote(child.Help))
		}
		if node.DefaultCmd != nil {
			node = node.DefaultCmd
		}
		for _, flag := range node.Flags {
			fmt.Fprintf(&b, "complete -c longline -n %s -l %s -d %s\n", quote(condition), flag.Name, quote(flag.Help))
		}
	})
	return b.String()
}
