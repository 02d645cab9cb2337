package expr_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/gateway/expr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const opened = `{"specversion":"1.0","id":"1","source":"/mailshots/42","type":"email.opened","time":"2026-11-22T13:31:00.123Z",` +
	`"subject":"alice@example.com","partitionkey":"alice@example.com","tenant":"42","retries":3,` +
	`"data":{"amount":120,"bot":false,"name":"Zoë","items":[{"sku":"a","price":1.5},{"sku":"b","price":2}],"contact":{"id":"c-7"}}}`

func mustFilter(t testing.TB, text string) *expr.Filter {
	t.Helper()
	f, err := expr.CompileFilter(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return f
}

func TestFilters(t *testing.T) {
	for _, tt := range []struct {
		filter string
		want   bool
		fails  string // part of the error of a no
	}{
		{`event.data.amount > 100.0 && event.type.startsWith("email.")`, true, ""},
		{`event.data.amount > 100`, true, ""},
		{`event.data.amount > 120`, false, ""},
		{`!has(event.data.bot) || event.data.bot != true`, true, ""},
		{`!has(event.data.none) || event.data.none != true`, true, ""},
		{`event.data.none != true`, false, "none"},
		{`event.dataschema == "x"`, false, "no dataschema"},
		{`has(event.subject) && event.subject.endsWith("@example.com")`, true, ""},
		{`has(event.dataschema)`, false, ""},
		{`event.tenant == "42" && event.retries == 3`, true, ""},
		{`event.data.items.exists(i, i.sku == "b" && i.price >= 2.0)`, true, ""},
		{`event.data.items.all(i, i.price > 1.5)`, false, ""},
		{`event.data["contact"].id in ["c-7", "c-8"]`, true, ""},
		{`event.time < "2026-12-01T00:00:00Z"`, true, ""},
		{`event.data.name.matches("^Z.ë$")`, true, ""},
		{`event.data.?contact.?name.orValue("none") == "none"`, true, ""},
		{`event.data.name > 5`, false, "no such overload"},
		{`event.subject.replace("e", "3") == "alic3@3xampl3.com" && event.subject.replace("e", "", 1) == "alic@example.com" && "ab".replace("", "-", -1) == "-a-b-"`, true, ""},
		{`["a", "b"].join("-") == "a-b" && ["a"].join("-") == "a" && [event.type, "!"].join() == "email.opened!"`, true, ""},
		{`[event.data.amount].join("-") == ""`, false, "not of double"},
		{`event.data`, false, "neither true nor false"},
	} {
		got, err := mustFilter(t, tt.filter).Match(expr.NewEvent([]byte(opened)))
		if got != tt.want || (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: %v, %v; want %v, %q", tt.filter, got, err, tt.want, tt.fails)
		}
	}
}

func TestWrongExpressionsNameThePlace(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{``, "empty"},
		{strings.Repeat(" ", 1025), "1025 bytes; at most 1024"},
		{`event.type ==`, "line 1, column 14"},
		{"event.type == \"a\" &&\n  evnt.type == \"b\"", "line 2, column 3: undeclared reference to 'evnt'"},
		{`event.Kind == "a"`, "undefined field 'Kind'"},
		{`event.type > 5`, "line 1, column 12: found no matching overload"},
		{`event.type`, "of type string; want bool"},
		{`event.type.matches("(")`, "column 20"},
		{`event.data.a.exists(x, event.data.b.exists(y, x == y))`, "steps"},
		{`"%s%s".format([event.type, event.type]) == ""`, "format is not taken"},
		{`now() > event.time`, "undeclared reference to 'now'"},
	} {
		_, err := expr.CompileFilter(tt.text)
		if _, ok := expr.IsError(err); !ok || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40q: %v; want %q", tt.text, err, tt.want)
		}
	}
}

// TestDearEvaluationsEnd: whatever the estimate let through is stopped.
func TestDearEvaluationsEnd(t *testing.T) {
	f := mustFilter(t, `event.data.all(x, event.data.size() > 0)`)
	big := `{"data":[` + strings.TrimSuffix(strings.Repeat("1,", 128<<10), ",") + `]}`
	if got, err := f.Match(expr.NewEvent([]byte(big))); err != nil || !got {
		t.Errorf("%v, %v; an event of the largest size is within the bound", got, err)
	}
}

// What holds a feed up is cut off, be it many small steps or one large one, and
// that is told apart from an event that merely lacks something.
func TestDearFiltersAreCutOff(t *testing.T) {
	list := `{"data":{"a":[` + strings.TrimSuffix(strings.Repeat("1,", 128<<10), ",") + `]}}`
	text := `{"data":{"a":"` + strings.Repeat("a", 255<<10) + `"}}`
	both := `{"data":{"l":[` + strings.TrimSuffix(strings.Repeat("1,", 30<<10), ",") + `],"s":"` + strings.Repeat("1", 96<<10) + `","t":"` + strings.Repeat("1", 96<<10-1) + `2"}}`
	texts := `{"data":{"r":["` + strings.Repeat("a", 128<<10) + `","` + strings.Repeat("b", 100<<10) + `"]}}`
	joined := `{"data":{"r":[[` + strings.TrimSuffix(strings.Repeat(`"",`, 40<<10), ",") + `],"` + strings.Repeat("b", 100<<10) + `"]}}`
	for _, tt := range []struct {
		filter, data, want string
		dear               bool
	}{
		{`event.data.a.map(x, x + 1.0).size() > 0`, list, "cost limit", true},
		{`event.data.a.split("").all(x, x == "a")`, text, "cost limit", true},
		{`event.data.a.split("a").map(x, event.data.a).size() > 3`, text, "cost limit", true},
		{`event.data.a.matches("` + strings.Repeat("[a-z]{0,40}", 12) + `[0-9]")`, text, "too large to be matched", true},
		{`[1,2,3,4,5,6,7,8].all(i, !event.data.a.matches("(a|aa)+b"))`, text, "cost limit", true},
		{`event.data.l.all(x, size(event.data.s) > 0)`, both, "cost limit", true},
		{`event.data.l.all(x, double(event.data.s) > 0.0)`, both, "cost limit", true},
		{`event.data.l.exists(x, int(event.data.s) > 0)`, both, "cost limit", true},
		{`event.data.l.exists(x, bool(event.data.s))`, both, "cost limit", true},
		{`event.data.l.exists(x, timestamp(event.data.s) < timestamp(event.time))`, both, "cost limit", true},
		{`event.data.l.exists(x, duration(event.data.s) < duration("1s"))`, both, "cost limit", true},
		{`event.data.l.all(x, timestamp("2026-01-01T00:00:00Z").getHours("Europe/Berlin") == 1)`, both, "cost limit", true},
		{`event.data.t in event.data.l.map(x, event.data.s)`, both, "cost limit", true},
		{`event.data.r.filter(x, true)[0].replace("a", event.data.r.filter(x, true)[1]).size() == 0`, texts, "too large for this", true},
		{`event.data.r.filter(x, true)[0].join(event.data.r.filter(x, true)[1]).size() == 0`, joined, "too large for this", true},
		{`event.data.b > 1.0`, list, "no such key", false},
	} {
		got, err := mustFilter(t, tt.filter).Match(expr.NewEvent([]byte(tt.data)))
		if got || err == nil || !strings.Contains(err.Error(), tt.want) || expr.TooDear(err) != tt.dear {
			t.Errorf("%.60s: %v, %v (too dear: %v); want %q", tt.filter, got, err, expr.TooDear(err), tt.want)
		}
	}
	small := expr.NewEvent([]byte(`{"data":{"a":"crm-42@example.com"}}`))
	if got, err := mustFilter(t, `event.data.a.matches("^[a-z0-9-]+@example[.]com$") && event.data.a.matches("example")`).Match(small); !got || err != nil {
		t.Errorf("got %v, %v, want a match", got, err)
	}
}

// TestSharedValuesCountAsOftenAsTheyStand: a value that holds another many
// times over is small until it is walked through.
func TestSharedValuesCountAsOftenAsTheyStand(t *testing.T) {
	nested := "[1]" + strings.Repeat(".map(a, [a,a,a,a,a,a,a,a])", 20)
	data := `{"data":{"n":[` + strings.TrimSuffix(strings.Repeat("1,", 2_000), ",") + `]}}`
	for _, filter := range []string{
		nested + `.all(x, x == x)`,
		nested + `.all(x, x != x)`,
		nested + `.all(x, x in [x])`,
		nested + `.all(x, {"a": x} == {"a": x})`,
		nested + `.all(x, optional.of(x) == optional.of(x))`,
		`event.data.n.map(x, event.data.n) == event.data.n.map(x, event.data.n)`,
		`event.data.n.all(x, [event.data] == [event.data])`,
	} {
		if got, err := mustFilter(t, filter).Match(expr.NewEvent([]byte(data))); got || err == nil ||
			!strings.Contains(err.Error(), "too large for this") && !strings.Contains(err.Error(), "cost limit") {
			t.Errorf("%.60s: %v, %v; want that it is too large, or too dear", filter, got, err)
		}
	}
	for _, body := range []string{nested, `event.data.n.map(x, event.data.n)`} {
		b, err := expr.CompileBody(body, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.JSON(expr.NewEvent([]byte(data))); err == nil || !strings.Contains(err.Error(), "larger than 4194304 bytes") {
			t.Errorf("%.60s: %v; want that it is too large", body, err)
		}
	}
	within := `event.data == event.data && event.data.n in [event.data.n] && event.data.n != [] && 1 in event.data.n`
	if got, err := mustFilter(t, within).Match(expr.NewEvent([]byte(data))); !got || err != nil {
		t.Errorf("%s: %v, %v", within, got, err)
	}
}

func TestBodies(t *testing.T) {
	one, err := expr.CompileBody(`{"Email": event.subject, "Opened__c": event.time, "N": event.data.amount, "Items": event.data.items.map(i, i.sku)}`, false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := one.JSON(expr.NewEvent([]byte(opened)))
	if want := `{"Email":"alice@example.com","Items":["a","b"],"N":120,"Opened__c":"2026-11-22T13:31:00.123Z"}`; err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	all, err := expr.CompileBody(`{"inputs": events.map(e, {"id": e.subject, "whole": e.data.contact})}`, true)
	if err != nil {
		t.Fatal(err)
	}
	got, err = all.JSON(expr.NewEvent([]byte(opened)), expr.NewEvent([]byte(`{"subject":"bob","data":{"contact":null}}`)))
	if want := `{"inputs":[{"id":"alice@example.com","whole":{"id":"c-7"}},{"id":"bob","whole":null}]}`; err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	missing, err := expr.CompileBody(`{"Email": event.data.email}`, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := missing.JSON(expr.NewEvent([]byte(opened))); err == nil || !strings.Contains(err.Error(), "email") {
		t.Errorf("%v; want an error that names email", err)
	}
	if _, err := expr.CompileBody(`event.subject`, true); err == nil {
		t.Error("a batch has events, not event")
	}
}

func TestOutcomes(t *testing.T) {
	answer := &expr.Response{Status: 200, Headers: map[string]string{"x-left": "3"}, Body: []byte(`{"results":[{"success":true},{"success":false}]}`)}
	two := []*expr.Event{expr.NewEvent([]byte(opened)), expr.NewEvent([]byte(opened))}
	for _, tt := range []struct {
		outcome string
		batch   bool
		want    string
	}{
		{`response.status == 200 ? "ack" : "retry"`, false, "[ack]"},
		{`response.headers["x-left"] == "0" ? "retry" : "refuse"`, false, "[refuse]"},
		{`response.body.results.map(r, r.success ? "ack" : "refuse")`, true, "[ack refuse]"},
		{`response.status == 500 ? dyn("retry") : dyn(response.body.results.map(r, r.success ? "ack" : "refuse"))`, true, "[ack refuse]"},
		{`"ack"`, true, "[ack ack]"},
		{`response.body.missing`, false, "no such key: missing"},
		{`response.body.results.map(r, "ack").filter(x, false)`, true, "0 values for 2 events"},
		{`dyn("yes")`, false, `the outcome is "yes"; want "ack"`},
		{`dyn([1]` + strings.Repeat(".map(a, [a,a,a,a,a,a,a,a])", 20) + `)`, false, `the outcome is of type list; want "ack"`},
	} {
		o, err := expr.CompileOutcome(tt.outcome, tt.batch)
		if err != nil {
			t.Errorf("%s: %v", tt.outcome, err)
			continue
		}
		events := two
		if !tt.batch {
			events = two[:1]
		}
		got, err := o.Of(answer, events...)
		if text := fmt.Sprint(got); text != tt.want && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %s, %v; want %s", tt.outcome, text, err, tt.want)
		}
	}
	if _, err := expr.CompileOutcome(`1`, false); err == nil || !strings.Contains(err.Error(), "of type int; want string") {
		t.Errorf("%v; want that it is no text", err)
	}
}

// TestFiltersAreSharedWhileInUse: the same text is the same filter, and one
// that nobody holds is forgotten.
func TestFiltersAreSharedWhileInUse(t *testing.T) {
	a, b := mustFilter(t, `event.type == "shared"`), mustFilter(t, `event.type == "shared"`)
	if a != b {
		t.Error("one text made two filters")
	}
	runtime.KeepAlive(a)
}

func FuzzFilter(f *testing.F) {
	f.Add(`event.data.items.exists(i, i.sku == "b")`, opened)
	f.Add(`event.data.?a[0].orValue(event.tenant) == 'x'`, `{"tenant":null,"data":[]}`)
	f.Fuzz(func(t *testing.T, text, event string) {
		filter, err := expr.CompileFilter(text)
		if err != nil {
			if _, ok := expr.IsError(err); !ok {
				t.Fatalf("%q: %v has no place", text, err)
			}
			return
		}
		if yes, err := filter.Match(expr.NewEvent([]byte(event))); yes && err != nil {
			t.Fatalf("%q: yes, and %v", text, err)
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	f := mustFilter(b, `event.data.amount > 100.0 && event.type.startsWith("order.")`)
	e := expr.NewEvent([]byte(opened))
	b.Run("match", func(b *testing.B) {
		for b.Loop() {
			f.Match(e)
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			f.Match(expr.NewEvent([]byte(opened)))
		}
	})
}
