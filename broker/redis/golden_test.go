package redis_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/longline-push/longline/broker/brokertest"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
)

var update = flag.Bool("update", false, "write the golden data of a new format")

// What a format stored once, each later binary reads and goes on with; and what
// is written today has the shape of the present format, so that the binary
// before reads it in a rolling upgrade. Whoever changes a shape raises
// redis.Format, writes its golden data with -update, and keeps the older ones.
func TestGolden(t *testing.T) {
	present := fmt.Sprintf("testdata/format-%d.txt", redis.Format)
	t.Run("written", func(t *testing.T) {
		s := redistest.Start(t)
		b := mustOpen(t, s.URL(), redis.Options{TrimEvery: -1})
		epoch := brokertest.FillGolden(t, b)
		mustClose(t, b)
		got := dump(s)
		if _, err := os.Stat(present); *update && err != nil {
			if err := os.WriteFile(present, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(present)
		if err != nil {
			t.Fatalf("%v: -update writes the golden data of a new format", err)
		}
		shapes := func(text, epoch string) []string {
			lines := strings.Split(strings.ReplaceAll(text, epoch, "EPOCH"), "\n")
			for i, line := range lines {
				lines[i] = varying.ReplaceAllString(line, "…")
			}
			slices.Sort(lines)
			return lines
		}
		was := shapes(string(golden), epochIn(t, string(golden)))
		is := shapes(got, epoch)
		for _, line := range is {
			if !slices.Contains(was, line) {
				t.Errorf("written otherwise than in format %d: %s", redis.Format, line)
			}
		}
		for _, line := range was {
			if !slices.Contains(is, line) {
				t.Errorf("not written as in format %d: %s", redis.Format, line)
			}
		}
	})
	for format := 2; format <= redis.Format; format++ {
		t.Run(fmt.Sprintf("read %d", format), func(t *testing.T) {
			golden, err := os.ReadFile(fmt.Sprintf("testdata/format-%d.txt", format))
			if err != nil {
				t.Fatal(err)
			}
			s := redistest.Start(t)
			load(t, s, string(golden))
			brokertest.WantGolden(t, mustOpen(t, s.URL(), redis.Options{TrimEvery: -1}))
		})
	}
}

// varying is what differs from run to run: times, who the server is, versions,
// and which of two hashes of identities has its turn.
var varying = regexp.MustCompile(`[0-9a-f]{40}|[0-9]{7,}|i[01]:|"v" "[0-9]+"|"(crm|parked)" "[0-9]+"|parked\\x00[0-9]+|"2:[0-9]+"`)

func epochIn(t *testing.T, text string) string {
	t.Helper()
	m := regexp.MustCompile(`m:acct-1" .*"e" "([^"]+)"`).FindStringSubmatch(text)
	if m == nil {
		t.Fatal("no epoch in the golden data")
	}
	return m[1]
}

// dump returns all keys as the commands that make them, one a line, words
// quoted as in Go.
func dump(s *redistest.Server) string {
	var lines []string
	for _, k := range s.Do("KEYS", "*").([]any) {
		var words []any
		switch kind := s.Do("TYPE", k).(string); kind {
		case "string":
			words = []any{"SET", k, s.Do("GET", k)}
		case "hash":
			pairs := pairsOf(s.Do("HGETALL", k))
			slices.SortFunc(pairs, func(a, b [2]any) int { return strings.Compare(fmt.Sprint(a[0]), fmt.Sprint(b[0])) })
			words = []any{"HSET", k}
			for _, p := range pairs {
				words = append(words, p[0], p[1])
			}
		case "zset":
			words = []any{"ZADD", k}
			for _, p := range pairsOf(s.Do("ZRANGE", k, 0, -1, "WITHSCORES")) {
				words = append(words, p[1], p[0])
			}
		case "list":
			words = append([]any{"RPUSH", k}, s.Do("LRANGE", k, 0, -1).([]any)...)
		case "set":
			words = append([]any{"SADD", k}, s.Do("SMEMBERS", k).([]any)...)
		case "stream":
			for _, entry := range s.Do("XRANGE", k, "-", "+").([]any) {
				e := entry.([]any)
				lines = append(lines, quoted(append([]any{"XADD", k, e[0]}, e[1].([]any)...)))
			}
			continue
		default:
			panic(kind)
		}
		lines = append(lines, quoted(words))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// pairsOf is a reply of pairs, in one list or in lists of two.
func pairsOf(reply any) (pairs [][2]any) {
	if m, ok := reply.(map[any]any); ok {
		for k, v := range m {
			pairs = append(pairs, [2]any{k, v})
		}
		return pairs
	}
	list := reply.([]any)
	for i := 0; i < len(list); i++ {
		if p, ok := list[i].([]any); ok {
			pairs = append(pairs, [2]any{p[0], p[1]})
			continue
		}
		pairs = append(pairs, [2]any{list[i], list[i+1]})
		i++
	}
	return pairs
}

func quoted(words []any) string {
	texts := make([]string, len(words))
	for i, w := range words {
		if f, ok := w.(float64); ok {
			w = strconv.FormatFloat(f, 'f', -1, 64)
		}
		texts[i] = strconv.QuoteToASCII(fmt.Sprint(w))
	}
	return strings.Join(texts, " ")
}

func load(t *testing.T, s *redistest.Server, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		var words []any
		for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimSpace(rest) {
			word, err := strconv.QuotedPrefix(rest)
			if err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			rest = rest[len(word):]
			word, err = strconv.Unquote(word)
			if err != nil {
				t.Fatal(err)
			}
			words = append(words, word)
		}
		s.Do(words...)
	}
}
