package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// The tools for conflicts and limits, as an operator uses them: two nodes that wrote apart,
// the values side by side, what happened, a put that resolves, then limits.
func TestConflictTools(t *testing.T) {
	t.Parallel()
	first, second := newAgent(t, "host-1").start(), newAgent(t, "host-2").start()
	on := func(a *agent, args ...string) result { return meshkv(t, append(args, "--addr", a.http)...) }
	ok := func(a *agent, args ...string) string {
		t.Helper()
		r := on(a, args...)
		if r.code != 0 {
			t.Fatalf("meshkv %s: code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
		}
		return r.stdout
	}
	fails := func(a *agent, code int, says string, args ...string) {
		t.Helper()
		if r := on(a, args...); r.code != code || !strings.Contains(r.stderr, says) {
			t.Errorf("meshkv %s: code %d, want %d that says %q\n%s%s", strings.Join(args, " "), r.code, code, says, r.stdout, r.stderr)
		}
	}
	ok(first, "put", "nodes/a", "one")
	ok(second, "put", "nodes/a", "two")
	second.signal(syscall.SIGTERM)
	second.join = []string{first.bind}
	second.start()
	second.awaitAlive(2)
	siblings := func(a *agent) int {
		var e struct{ Siblings []struct{ Origin string } }
		if err := json.Unmarshal([]byte(ok(a, "get", "nodes/a", "--siblings", "-o", "json")), &e); err != nil {
			t.Fatal(err)
		}
		return len(e.Siblings)
	}
	for _, a := range []*agent{first, second} {
		eventually(t, "the values meet", func() bool { return siblings(a) == 1 })
	}
	if out := ok(first, "get", "nodes/a", "--siblings"); !strings.Contains(out, "one") || !strings.Contains(out, "two") || !strings.Contains(out, "host-1") {
		t.Errorf("siblings:\n%s", out)
	}
	ok(first, "put", "nodes/a", "both")
	eventually(t, "resolved", func() bool { return siblings(second) == 0 })

	history := ok(second, "history", "nodes/a")
	lines := strings.Split(history, "\n")
	if !strings.HasPrefix(lines[0], "ARRIVED") || !strings.Contains(lines[1], "both") || !strings.Contains(lines[1], "host-1") || len(strings.Fields(lines[1])) < 7 {
		t.Errorf("history:\n%s", history)
	}
	var h struct {
		Node   string
		Since  time.Time
		Events []struct {
			Type    string
			Removes []string
			Lag     *float64 `json:"lag_ms"`
		}
	}
	if err := json.Unmarshal([]byte(ok(second, "history", "nodes/a", "-o", "json")), &h); err != nil {
		t.Fatal(err)
	}
	if h.Node != "host-2" || h.Since.IsZero() || h.Events[0].Type != "put" || len(h.Events[0].Removes) != 2 || h.Events[0].Lag == nil {
		t.Errorf("history: %+v", h)
	}
	if raw := ok(second, "history", "nodes/a", "-o", "raw", "--limit", "1"); !strings.HasPrefix(raw, "put\t") || strings.Count(raw, "\n") != 1 {
		t.Errorf("history: %q", raw)
	}
	fails(first, codeNotFound, "nothing of this key since", "history", "nodes/never")
	fails(first, codeNotFound, "", "history", "none/never")

	if out := ok(first, "keyspace", "freeze", "nodes"); !strings.Contains(out, "frozen") {
		t.Errorf("freeze:\n%s", out)
	}
	fails(first, codeConflict, "keyspace thaw nodes", "put", "nodes/a", "late")
	fails(first, codeConflict, "keyspace thaw nodes", "del", "nodes/a")
	eventually(t, "frozen elsewhere", func() bool { return on(second, "put", "nodes/a", "late").code == codeConflict })
	if out := ok(second, "keyspace", "info", "nodes"); !strings.Contains(out, "frozen") {
		t.Errorf("info:\n%s", out)
	}
	ok(second, "keyspace", "thaw", "nodes")
	ok(second, "put", "nodes/a", `{"vtep":"10.0.0.1"}`)

	schema := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(schema, []byte(`{"type":"object","required":["vtep"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ok(second, "keyspace", "set", "nodes", "--schema", schema, "--max-value", "1KiB", "--max-keys", "1", "--rate", "1000")
	fails(second, codeUsage, "#/required", "put", "nodes/a", "{}")
	fails(second, codeError, "--max-value", "put", "nodes/a", `{"vtep":"`+strings.Repeat("x", 1<<10)+`"}`)
	fails(second, codeError, "--max-keys", "put", "nodes/b", `{"vtep":"10.0.0.2"}`)
	var info struct{ Settings client.KeyspaceSettings }
	if err := json.Unmarshal([]byte(ok(second, "keyspace", "info", "nodes", "-o", "json")), &info); err != nil {
		t.Fatal(err)
	}
	if s := info.Settings; s.MaxValue != 1024 || s.MaxKeys != 1 || s.Rate != 1000 || !strings.Contains(s.Schema, "vtep") || s.Frozen {
		t.Errorf("info: %+v", info)
	}
	if out := ok(second, "keyspace", "set", "nodes", "--max-keys", "none", "--schema", "none", "-o", "json"); out != `{"name":"nodes","settings":{"frozen":false,"max_value":1024,"rate":1000}}`+"\n" {
		t.Errorf("set: %s", out)
	}
	ok(second, "put", "nodes/b", "anything")
	for _, args := range [][]string{{"set", "nodes"}, {"set", "nodes", "--max-keys", "-1"}, {"set", "nodes", "--max-keys", "0"}, {"set", "nodes", "--max-value", "x"},
		{"set", "nodes", "--schema", "/does/not/exist"}, {"set", "_members", "--rate", "none", "--max-keys", "x"}, {"freeze", "A"}} {
		fails(second, codeUsage, "", append([]string{"keyspace"}, args...)...)
	}
	fails(second, codeDenied, "system", "keyspace", "freeze", "_members")
}

// eventually waits for cond; the tick only says how often it is asked.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}
