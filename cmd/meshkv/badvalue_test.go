package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/clienttest"
)

// badEntries are what no consumer may stumble over: random bytes, keys that are
// not text, the longest key and the largest value.
func badEntries() map[string]string {
	rng := rand.New(rand.NewPCG(11, 11))
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return string(b)
	}
	entries := map[string]string{
		"good": "1", "empty": "", "line\nend": "a\r\n\tb", "escape\x1b[2J": "\x1b]0;title\x07", "\xff\xfe": "\xff\xfe",
		"\x00": "\x00", "tag/<&>\u2028": `{"key":`, strings.Repeat("k", 1024): random(64 << 10), strings.Repeat("\xff", 1024): strings.Repeat("\xff", 64<<10),
	}
	for range 20 {
		entries[random(1+rng.IntN(1024))] = random(rng.IntN(64 << 10))
	}
	return entries
}

// entryLine is an entry as `-o json` and the HTTP API give it.
type entryLine struct {
	Key    *string
	KeyB64 []byte `json:"key_b64"`
	Value  []byte
}

func (l entryLine) key() string {
	if l.Key != nil {
		return *l.Key
	}
	return string(l.KeyB64)
}

// One bad value, spread to every node, stops no consumer: a watch at either
// node, a list, the command line in every form, and the HTTP API give all of it,
// and what is written later.
func TestF11BadValuesStopNobody(t *testing.T) {
	t.Parallel()
	first := newAgent(t, "host-1").start()
	second := newAgent(t, "host-2", first.bind).start()
	ctx, c1 := first.connect()
	_, c2 := second.connect()
	ks1, err := c1.Keyspace(ctx, "net")
	if err != nil {
		t.Fatal(err)
	}
	ks2, err := c2.Keyspace(ctx, "net")
	if err != nil {
		t.Fatal(err)
	}
	early, err := ks2.Watch(ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	want := badEntries()
	for key, value := range want {
		if _, err := ks1.Put(ctx, key, []byte(value), nil); err != nil {
			t.Fatalf("put of a key of %d bytes: %v", len(key), err)
		}
	}
	want["later"] = "still here"
	if _, err := ks1.Put(ctx, "later", []byte("still here"), nil); err != nil {
		t.Fatal(err)
	}
	must(t, "wait", "--synced", "net", "--addr", second.http)

	late, err := ks2.Watch(ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	for name, w := range map[string]client.Watch{"early": early, "late": late} {
		shown := make(map[string]string)
		for !maps.Equal(shown, want) {
			ev, err := w.Next(ctx)
			if err != nil {
				t.Fatalf("%s watch: %v, %d of %d keys", name, err, len(shown), len(want))
			}
			clienttest.Apply(shown, ev)
		}
	}
	listed := make(map[string]string)
	for e, err := range ks2.List(ctx, "", nil) {
		if err != nil {
			t.Fatal(err)
		}
		listed[e.Key] = string(e.Value)
	}
	same(t, "list", listed, want)

	same(t, "ls -o json", entriesOf(t, must(t, "ls", "net", "-o", "json", "--addr", second.http), false), want)
	same(t, "watch -o json", entriesOf(t, must(t, "watch", "net", "--until-synced", "-o", "json", "--addr", second.http), true), want)
	resp, err := http.Get("http://" + second.http + "/v1/keys/net?values=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "HTTP list", entriesOf(t, string(body), false), want)
	for _, form := range []string{"table", "raw"} {
		for _, args := range [][]string{{"ls", "net"}, {"watch", "net", "--until-synced"}} {
			out := must(t, append(args, "-o", form, "--addr", second.http)...)
			if form == "table" && (strings.ContainsRune(out, '\x1b') || !utf8.ValidString(out)) {
				t.Errorf("%v as a table drives the terminal", args)
			}
			if !strings.Contains(out, "later") {
				t.Errorf("%v as %s lacks the last key", args, form)
			}
		}
	}
	for key, value := range want {
		if strings.ContainsRune(key, 0) {
			continue // no argument of a program can hold it
		}
		var e entryLine
		if err := json.Unmarshal([]byte(must(t, "get", "-o", "json", "--addr", second.http, "--", "net/"+key)), &e); err != nil || e.key() != key || string(e.Value) != value {
			t.Errorf("get -o json of %s: %v", shortKey(key), err)
		}
		if got := must(t, "get", "-o", "raw", "--addr", second.http, "--", "net/"+key); got != value {
			t.Errorf("get -o raw of %s: %d bytes, want %d", shortKey(key), len(got), len(value))
		}
	}
}

// entriesOf reads lines of entries, or the entries of lines of events.
func entriesOf(t *testing.T, out string, events bool) map[string]string {
	t.Helper()
	found := make(map[string]string)
	lines := bufio.NewReader(bytes.NewReader([]byte(out)))
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return found
		}
		var l struct {
			entryLine
			Entry *entryLine
		}
		if err := json.Unmarshal(line, &l); err != nil || !utf8.Valid(line) {
			t.Errorf("line of %d bytes: %v", len(line), err)
			continue
		}
		switch {
		case !events:
			found[l.key()] = string(l.Value)
		case l.Entry != nil:
			found[l.Entry.key()] = string(l.Entry.Value)
		}
	}
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for key, value := range want {
		if v, ok := got[key]; !ok || v != value {
			t.Errorf("%s: key %s: there %v, %d bytes, want %d", what, shortKey(key), ok, len(v), len(value))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d keys, want %d", what, len(got), len(want))
	}
}

func shortKey(key string) string { return fmt.Sprintf("%.20q (%d bytes)", key, len(key)) }
