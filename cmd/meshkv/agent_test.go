package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/meshkv/meshkv/client"
)

func TestThreeAgents(t *testing.T) {
	t.Parallel()
	agents := threeAgents(t)
	one, two, three := agents[0], agents[1], agents[2]

	must(t, "put", "net/a/1", "first", "--addr", one.http)
	must(t, "wait", "--synced", "net", "--addr", one.http, "--timeout", "60s")
	for _, a := range agents {
		if got := must(t, "get", "net/a/1", "--addr", a.http); got != "first\n" {
			t.Errorf("get on %s: got %q", a.name, got)
		}
	}
	put := program(t, "put", "net/bin", "-", "--addr", two.http)
	put.Stdin = strings.NewReader("\x00\xff\n")
	if r := finish(t, put); r.code != 0 {
		t.Fatalf("put from stdin: %+v", r)
	}
	if got := must(t, "get", "net/bin", "-o", "raw", "--addr", two.http); got != "\x00\xff\n" {
		t.Errorf("raw get: got %q", got)
	}
	if got := must(t, "ls", "net/a", "-o", "raw", "--addr", two.http); got != "a/1\n" {
		t.Errorf("ls: got %q", got)
	}
	var entry struct {
		Key, Origin, Version string
		Value                []byte
	}
	if err := json.Unmarshal([]byte(must(t, "get", "net/a/1", "-o", "json", "--addr", three.http)), &entry); err != nil {
		t.Fatal(err)
	}
	if entry.Key != "a/1" || string(entry.Value) != "first" || entry.Origin != "host-1" || entry.Version == "" {
		t.Errorf("json get: got %+v", entry)
	}
	if got := must(t, "members", "-o", "raw", "--addr", three.http); got != "host-1\nhost-2\nhost-3\n" {
		t.Errorf("members: got %q", got)
	}

	// A node that is killed, misses puts and a delete, and comes back.
	if code := three.signal(syscall.SIGKILL); code != -1 {
		t.Errorf("kill -9: code %d", code)
	}
	must(t, "del", "net/a/1", "--addr", one.http)
	must(t, "put", "net/a/2", "second", "--addr", two.http)
	three.start()
	three.awaitAlive(3)
	must(t, "wait", "--synced", "net", "--addr", three.http, "--timeout", "60s")
	if r := meshkv(t, "get", "net/a/1", "--addr", three.http); r.code != codeNotFound {
		t.Errorf("the deleted key is back after a restart: %+v", r)
	}
	if got := must(t, "get", "net/a/2", "--addr", three.http); got != "second\n" {
		t.Errorf("missed put: got %q", got)
	}
	digest := must(t, "digest", "net", "-o", "raw", "--addr", one.http)
	for _, a := range agents[1:] {
		if got := must(t, "digest", "net", "-o", "raw", "--addr", a.http); got != digest {
			t.Errorf("digest of %s: got %q, want %q", a.name, got, digest)
		}
	}
	if r := meshkv(t, "diff", "net", "host-1", "host-3", "--addr", two.http); r.code != 0 || r.stdout != "" {
		t.Errorf("diff of equal nodes: %+v", r)
	}

	for _, a := range agents {
		a.awaitAlive(3)
	}
	reach := must(t, "reachability", "-o", "raw", "--addr", two.http)
	if got := strings.Count(reach, "alive+\n"); got != 6 || strings.Count(reach, "\n") != 6 {
		t.Errorf("reachability: got %q, want 6 nodes with links", reach)
	}
	if got := strings.Count(must(t, "rtt", "-o", "json", "--addr", one.http), `"rtt_ms":`); got != 6 {
		t.Errorf("rtt: %d pairs, want 6", got)
	}

	// A graceful stop is not a leave; a leave is.
	if code := two.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("SIGTERM: code %d, want 0\n%s", code, two.log)
	}
	two.start()
	two.awaitAlive(3)
	if got := must(t, "get", "net/a/2", "--addr", two.http); got != "second\n" {
		t.Errorf("after a graceful restart: got %q", got)
	}
	if got := must(t, "leave", "-o", "raw", "--addr", three.http); got != "host-3\n" {
		t.Errorf("leave: got %q", got)
	}
	if code := three.end(); code != 0 {
		t.Errorf("an agent that left: code %d, want 0\n%s", code, three.log)
	}
	one.awaitAlive(2)
}

func TestDiffOfNodesThatDiffer(t *testing.T) {
	t.Parallel()
	one, two := newAgent(t, "host-1").start(), newAgent(t, "host-2").start() // no cluster
	must(t, "put", "net/a", "1", "--addr", one.http)
	must(t, "put", "net/b", "1", "--addr", two.http)
	r := meshkv(t, "diff", "net", one.http, two.http, "-o", "raw")
	if r.code != codeError || r.stdout != "a\nb\n" || !strings.Contains(r.stderr, "2 keys differ") {
		t.Errorf("got %+v", r)
	}
}

func TestWatchUntilInterrupted(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "host-1").start()
	must(t, "put", "net/a", "1", "--addr", a.http)
	cmd := program(t, "watch", "net", "-o", "json", "--addr", a.http)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	events := json.NewDecoder(bufio.NewReader(stdout))
	type event struct {
		Type  client.EventType
		Entry struct {
			Key   string
			Value []byte
		}
		Cursor string
	}
	next := func() (e event) {
		t.Helper()
		if err := events.Decode(&e); err != nil {
			t.Fatalf("watch: %v", err)
		}
		return e
	}
	if e := next(); e.Type != client.EventPut || e.Entry.Key != "a" || string(e.Entry.Value) != "1" {
		t.Errorf("got %+v", e)
	}
	if e := next(); e.Type != client.EventSynced {
		t.Errorf("got %+v, want synced", e)
	}
	must(t, "put", "net/a", "2", "--addr", a.http)
	seen := next()
	if seen.Type != client.EventPut || string(seen.Entry.Value) != "2" || seen.Cursor == "" {
		t.Errorf("got %+v", seen)
	}
	must(t, "del", "net/a", "--addr", a.http)
	if e := next(); e.Type != client.EventDelete || e.Entry.Key != "a" {
		t.Errorf("got %+v", e)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != codeInterrupted {
		t.Errorf("code %d, want %d", code, codeInterrupted)
	}

	resumed := program(t, "watch", "net", "-o", "json", "--from", seen.Cursor, "--addr", a.http)
	stdout, err = resumed.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := resumed.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { resumed.Process.Kill(); resumed.Wait() }()
	events = json.NewDecoder(bufio.NewReader(stdout))
	if e := next(); e.Type != client.EventDelete || e.Entry.Key != "a" {
		t.Errorf("resumed: got %+v, want the delete", e)
	}
}

// A damaged store is set aside, never half used; the peers have the data.
func TestDamagedStoreComesBackFromPeers(t *testing.T) {
	t.Parallel()
	agents := threeAgents(t)
	victim := agents[2]
	for i := range 20 {
		must(t, "put", fmt.Sprintf("net/%d", i), "value", "--addr", victim.http)
	}
	must(t, "wait", "--synced", "net", "--addr", victim.http, "--timeout", "60s")
	if code := victim.signal(syscall.SIGTERM); code != 0 {
		t.Fatalf("SIGTERM: code %d", code)
	}
	damaged := damageStore(t, victim.dir)
	victim.start()
	victim.awaitAlive(3)
	must(t, "wait", "--synced", "net", "--addr", victim.http, "--timeout", "60s")
	if got := strings.Count(must(t, "ls", "net", "-o", "raw", "--addr", victim.http), "\n"); got != 20 {
		t.Errorf("%d keys are back, want 20", got)
	}
	if log := victim.log.String(); !strings.Contains(log, "damaged") || !strings.Contains(log, filepath.Base(damaged)) {
		t.Errorf("the log does not name the damaged file %s:\n%s", damaged, log)
	}
	aside, err := filepath.Glob(filepath.Join(victim.dir, "damaged-*", filepath.Base(damaged)))
	if err != nil || len(aside) != 1 {
		t.Errorf("the damaged file was not kept: %v, %v", aside, err)
	}
}

// damageStore flips a bit in the middle of every segment of the op log, and
// returns the first.
func damageStore(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var biggest string
	var size int64
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(filepath.Base(f), "wal-") && info.Size() > size {
			biggest, size = f, info.Size()
		}
	}
	if biggest == "" {
		t.Fatalf("no op log among %v", files)
	}
	b, err := os.ReadFile(biggest)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/3] ^= 0x10
	if err := os.WriteFile(biggest, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return biggest
}
