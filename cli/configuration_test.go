package cli

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/longline-push/longline/broker"
)

const configurationDoc = "../docs/configuration.md"

// TestConfigurationIsDocumented holds docs/configuration.md to the flags there
// are. Run with -update after a change.
func TestConfigurationIsDocumented(t *testing.T) {
	parser, err := kong.New(new(commands), variables(), kong.Vars{"version": "dev"})
	if err != nil {
		t.Fatal(err)
	}
	var serve []string
	others := make(map[string][]string) // commands that take a row's flag
	var rows []string
	walk(parser.Model.Node, "", func(words string, node *kong.Node) {
		for _, flag := range node.Flags {
			name, byDefault, help := "`--"+flag.Name+"`", "–", strings.ReplaceAll(flag.Help, "|", "\\|")
			if flag.HasDefault && flag.Default != "" {
				byDefault = "`" + flag.Default + "`"
			}
			if words == "serve" && flag.Name != "help" {
				env, key := "–", "–"
				if len(flag.Envs) == 1 {
					env = "`" + flag.Envs[0] + "`"
				}
				if flag.Name != "config" && flag.Name != "check" {
					key = "`" + flag.Name + "`"
				}
				serve = append(serve, fmt.Sprintf("| %s | %s | %s | %s | %s |", name, env, key, byDefault, help))
			} else if words != "serve" && len(flag.Envs) == 1 {
				row := fmt.Sprintf("| %s | `%s` | %s | %s |", name, flag.Envs[0], byDefault, help)
				if !slices.Contains(rows, row) {
					rows = append(rows, row)
				}
				others[row] = append(others[row], "`"+strings.TrimSuffix(words, " mint")+"`")
			}
		}
	})
	var clients []string
	for _, row := range rows {
		takers := others[row]
		who := strings.Join(takers, ", ")
		if len(takers) > 6 {
			who = "what talks to a gateway"
		}
		clients = append(clients, strings.TrimSuffix(row, "|")+"| "+who+" |")
	}
	if len(serve) < 35 || len(clients) < 8 {
		t.Fatalf("only %d flags of serve, %d of others", len(serve), len(clients))
	}

	byDefault := map[string]string{
		"replay": fmt.Sprintf("`%s`", shortTime(broker.DefaultRetention.ReplayAge)), "replay_events": fmt.Sprintf("`%d`", broker.DefaultRetention.ReplayEvents),
		"max_age": fmt.Sprintf("`%s`", shortTime(broker.DefaultRetention.MaxAge)), "max_bytes": fmt.Sprintf("`%dGiB`", broker.DefaultRetention.MaxBytes>>30),
		"none": "`false`", "channels": "required",
	}
	var retention []string
	for f := range reflect.TypeFor[retentionRule]().Fields() {
		if key := f.Tag.Get("yaml"); key != "" {
			retention = append(retention, fmt.Sprintf("| `%s` | %s | %s |", key, byDefault[key], f.Tag.Get("help")))
		}
	}

	want := "# Configuration\n\n" +
		"What this version takes. A flag wins over its environment variable, that over the key in the file which `--config` names (YAML), that over the default. An unknown flag or key, or a value that makes no sense, ends the start with status 2 and one line that names the flag and what it takes; `longline serve --check`, with the flags, variables and file that you run with, says whether they are right, makes nothing and ends.\n\n" +
		"Times are written `500ms`, `30s`, `10m`, `72h`; sizes `512`, `64KiB`, `4MiB`, `1GiB`, `1TiB`. What can be given several times is repeated as a flag, separated by commas in a variable, and a list in the file. Which of these are limits, and what a client meets beyond them, is in [Limits](limits.md).\n\n" +
		"## The gateway: `longline serve`\n\n| flag | environment | key in the file | default | what |\n|---|---|---|---|---|\n" + strings.Join(serve, "\n") +
		"\n\n## Retention\n\nOnly in the file: a list of rules, of which the first whose `channels` match counts. What a rule leaves out is as by default.\n\n| key | default | what |\n|---|---|---|\n" + strings.Join(retention, "\n") +
		"\n\nA file with some of everything:\n\n```yaml\n" + configurationExample + "```\n\n" +
		"## Client commands\n\nWhat says where and who can be given by the environment; what a command does is on its command line alone (`longline COMMAND --help`).\n\n| flag | environment | default | what | taken by |\n|---|---|---|---|---|\n" + strings.Join(clients, "\n") +
		"\n\nBesides these: `GOMEMLIMIT`, where it is set, is what `--memory` is by default. `NO_COLOR` turns colours off. Contexts (`longline context`) are kept in `longline/contexts.yaml` of your configuration folder (`XDG_CONFIG_HOME`).\n"
	if *update {
		if err := os.WriteFile(configurationDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(configurationDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s isn't what the commands take: go test ./cli -run ConfigurationIsDocumented -update", configurationDoc)
	}
}

const configurationExample = `listen: 0.0.0.0:8080
admin-listen: 127.0.0.1:8081
broker: embedded:/var/lib/longline?fsync=always
jwt-secret-file: /etc/longline/jwt
secret-key-file: /etc/longline/key
cors-origin: [https://app.example.com]
drain: 30s
max-body: 4MiB
retention:
  - channels: "acct.**"
    replay: 1h
    replay_events: 10000
    max_age: 168h
    max_bytes: 4GiB
  - channels: "ticker.*"
    none: true
`

// TestConfigurationExampleIsRight: the file that the page shows passes --check.
func TestConfigurationExampleIsRight(t *testing.T) {
	dir := t.TempDir()
	secret := dir + "/secret"
	file := dir + "/longline.yaml"
	text := strings.NewReplacer("/etc/longline/jwt", secret, "/etc/longline/key", secret, "/var/lib/longline", dir).Replace(configurationExample)
	for name, text := range map[string]string{secret: strings.Repeat("s", 40), file: text} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs strings.Builder
	err := Run(t.Context(), []string{"serve", "--config", file, "--check"}, strings.NewReader(""), &out, &errs)
	if err != nil || !strings.Contains(out.String(), "is right") {
		t.Errorf("%v: %s%s", err, &out, &errs)
	}
}

// shortTime is a time as people write it: 10m, not 10m0s.
func shortTime(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
