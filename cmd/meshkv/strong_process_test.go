package main

import (
	"bufio"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startDev starts 'meshkv dev' in a process and returns the address of its API.
func startDev(t *testing.T) string {
	t.Helper()
	cmd := program(t, "dev", "-o", "json", "--bind", "127.0.0.1:0", "--http", "127.0.0.1:0")
	log := &logBuffer{}
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		timer.Stop()
		cmd.Process.Signal(syscall.SIGTERM) // an error means that it ended before
		cmd.Wait()
		if t.Failed() {
			t.Logf("log of dev:\n%s", log)
		}
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	var at addresses
	if err == nil {
		err = json.Unmarshal(line, &at)
	}
	if err != nil {
		t.Fatalf("dev printed %q: %v\n%s", line, err, log)
	}
	return at.API
}

// The commands about strong keyspaces do with a real node what they do with a fake
// one.
func TestStrongCommands(t *testing.T) {
	t.Parallel()
	addr := startDev(t)
	run := func(code int, want string, args ...string) {
		t.Helper()
		r := meshkvIn(t, map[string]string{"MESHKV_ADDR": addr, "PATH": "/usr/bin:/bin"}, args...)
		if r.code != code || !strings.Contains(r.stdout+r.stderr, want) {
			t.Errorf("meshkv %s: got %+v, want code %d and %q", strings.Join(args, " "), r, code, want)
		}
	}
	run(codeOK, "locks: created, strong", "keyspace", "create", "locks", "--mode", "strong", "--timeout", "60s")
	run(codeOK, "locks: created, strong", "keyspace", "create", "locks", "--mode", "strong")
	run(codeConflict, "conflict", "keyspace", "create", "locks", "--mode", "eventual")
	run(codeOK, "dev", "voters", "locks")
	run(codeOK, "version 2", "put", "locks/a", "1", "--if-absent")
	run(codeConflict, "conflict", "put", "locks/a", "2", "--if-absent")
	run(codeOK, "version 3", "cas", "locks/a", "2", "--if-version", "2")
	run(codeConflict, "conflict", "cas", "locks/a", "3", "--if-version", "2")
	run(codeConflict, "conflict", "del", "locks/a", "--if-version", "2")
	run(codeOK, "1", "get", "locks/a", "--revision", "2", "-o", "raw")
	run(codeOK, "2", "get", "locks/a", "--consistency", "linearizable", "-o", "raw")
	run(codeUsage, "future", "get", "locks/a", "--revision", "99")
	run(codeOK, "3\t2\n2\t1\n", "history", "locks/a", "-o", "raw")
	run(codeOK, "vni: 1 to 9", "pool", "locks/vni", "define", "1", "9")
	run(codeOK, "1, token 1", "pool", "locks/vni", "alloc")
	run(3, "", "lock", "locks/x", "--", "sh", "-c", "exit 3")
	run(codeOK, "", "elect", "locks/x", "me", "--", "true")
	run(codeOK, "strong", "keyspace", "info", "locks")
	run(codeError, "locks is strong", "keyspace", "freeze", "locks")

	run(codeOK, "stored", "put", "net/a", "1")
	run(codeOK, "put", "history", "net/a")
	run(codeError, "keyspace create KS --mode strong", "put", "net/a", "2", "--if-absent")
	run(codeError, "keyspace create KS --mode strong", "lock", "net/x", "--", "true")
	run(codeError, "keyspace create KS --mode strong", "get", "net/a", "--consistency", "linearizable")
	run(codeNotFound, "none", "keyspace", "info", "none")
	run(codeOK, "removed", "keyspace", "rm", "locks")
	run(codeNotFound, "", "keyspace", "info", "locks")
}
