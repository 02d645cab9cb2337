package redis

import (
	"strings"
	"testing"

	"github.com/longline-push/longline/broker"
)

func TestParseAnnouncement(t *testing.T) {
	for _, test := range []struct {
		payload string
		want    broker.Announcement
		items   string // joined by |
		seq     uint64
		bad     bool
	}{
		{payload: "k3f9zq 5 6 17 1700000000000 2,3\naabbb", want: broker.Announcement{Epoch: "k3f9zq", Head: 6}, items: "aa|bbb", seq: 17},
		{payload: "k3f9zq 5 5 17 1700000000000 0\n", want: broker.Announcement{Epoch: "k3f9zq", Head: 5}, items: "", seq: 17},
		{payload: "k3f9zq 5 9 17 1700000000000 ", want: broker.Announcement{Epoch: "k3f9zq", Head: 9}, seq: 17},
		{payload: "k3f9zq 5 6 17 1700000000000 2\naa", bad: true},
		{payload: "k3f9zq 5 5 17 1700000000000 9\naa", bad: true},
		{payload: "k3f9zq 5 5 17 1700000000000 1\naa", bad: true},
		{payload: "k3f9zq 6 5 17 1700000000000 ", bad: true},
		{payload: "hello", bad: true},
	} {
		got, seq, err := parseAnnouncement(test.payload)
		if (err != nil) != test.bad || seq != test.seq || got.Epoch != test.want.Epoch || got.Head != test.want.Head {
			t.Errorf("%q: got %+v, %d, %v", test.payload, got, seq, err)
		}
		var items []string
		for i, item := range got.Items {
			if item.Offset != got.Head-uint64(len(got.Items))+uint64(i)+1 {
				t.Errorf("%q: item %d is at %d", test.payload, i, item.Offset)
			}
			items = append(items, string(item.Data))
		}
		if s := strings.Join(items, "|"); s != test.items {
			t.Errorf("%q: items %s, want %s", test.payload, s, test.items)
		}
	}
}

func FuzzParseAnnouncement(f *testing.F) {
	f.Add("k3f9zq 5 6 17 1700000000000 2,3\naabbb")
	f.Add("k3f9zq 5 9 17 1700000000000 ")
	f.Add("k3f9zq 1 18446744073709551615 1 1 1\nx")
	f.Fuzz(func(t *testing.T, payload string) {
		a, _, err := parseAnnouncement(payload)
		if err != nil {
			return
		}
		if a.Epoch == "" || a.Head == 0 {
			t.Fatalf("%q: taken as %+v", payload, a)
		}
		if n := len(a.Items); n > 0 && (a.Items[n-1].Offset != a.Head || a.Items[0].Offset != a.Head-uint64(n)+1) {
			t.Fatalf("%q: items %d to %d, head %d", payload, a.Items[0].Offset, a.Items[n-1].Offset, a.Head)
		}
	})
}

func TestParseURL(t *testing.T) {
	for url, want := range map[string]string{
		"redis://localhost":                         "localhost:6379",
		"redis://10.0.0.1:7000/2?pool_size=5":       "10.0.0.1:7000",
		"rediss://[::1]:7000":                       "[::1]:7000",
		"redis+sentinel://h1,h2:7/main/3":           "h1:26379 h2:7",
		"redis+cluster://h1:7000,h2:7000,h3":        "h1:7000 h2:7000 h3:6379",
		"redis://us%40er:p%2Fw%40@h/1?prefix=app2:": "h:6379",
	} {
		c, err := parseURL(url)
		if got := strings.Join(c.addrs, " "); err != nil || got != want {
			t.Errorf("%s: addresses %s, %v, want %s", url, got, err, want)
		}
	}
	c, _ := parseURL("redis+sentinel://u:p%2Fw@h1/main/3?wait_replicas=2&sentinel_password=s")
	if c.mode != sentinel || c.master != "main" || c.db != 3 || c.password != "p/w" || c.username != "u" ||
		c.waitReplicas != 2 || c.sentinels.password != "s" {
		t.Errorf("sentinel URL taken as %+v", c)
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("redis://user:pass@h:1/2?prefix=x")
	f.Add("redis+sentinel://h1,h2/main")
	f.Fuzz(func(t *testing.T, url string) {
		c, err := parseURL(url)
		if err == nil && len(c.addrs) == 0 {
			t.Fatalf("%q: taken without an address", url)
		}
	})
}

// Slots are those of the cluster specification, in which {user1000} is 3443.
func TestSlots(t *testing.T) {
	for tag, want := range map[string]int{"{user1000}": 3443, "{123456789}": 0x31c3} {
		if got := slotOf(tag); got != want {
			t.Errorf("slot of %s is %d, want %d", tag, got, want)
		}
	}
}
