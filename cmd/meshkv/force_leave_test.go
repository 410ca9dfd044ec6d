package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A killed agent is given up by command; one that lives is not, and nobody is
// found under a name that does not exist.
func TestForceLeave(t *testing.T) {
	t.Parallel()
	agents := threeAgents(t)
	one, three := agents[0], agents[2]
	if r := meshkv(t, "force-leave", "host-3", "--addr", one.http); r.code != codeUsage || !strings.Contains(r.stderr, "alive") {
		t.Errorf("alive: %+v", r)
	}
	if r := meshkv(t, "force-leave", "nobody", "--addr", one.http); r.code != codeNotFound {
		t.Errorf("nobody: %+v", r)
	}
	three.signal(syscall.SIGKILL)
	one.awaitStatus("host-3", "failed")
	if got := must(t, "force-leave", "host-3", "--addr", one.http); got != "host-3 was given up\n" {
		t.Errorf("got %q", got)
	}
	one.awaitStatus("host-3", "left")
	agents[1].awaitStatus("host-3", "left")

	must(t, "put", "net/k", "v", "--addr", one.http)
	if got := must(t, "keyspace", "allow-drops", "net", "--for", "30s", "-o", "raw", "--addr", one.http); got != "net\n" {
		t.Errorf("allow-drops: got %q", got)
	}
	if r := meshkv(t, "keyspace", "allow-drops", "net", "--for", "2h", "--addr", one.http); r.code == codeOK {
		t.Errorf("for two hours: %+v", r)
	}
	if r := meshkv(t, "keyspace", "allow-drops", "none", "--addr", one.http); r.code != codeNotFound {
		t.Errorf("no such keyspace: %+v", r)
	}
}

// awaitStatus waits until the agent sees the member so.
func (a *agent) awaitStatus(member string, want client.MemberStatus) {
	a.t.Helper()
	ctx, c := a.connect()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		members, err := c.Members(ctx)
		if err != nil {
			a.t.Fatalf("members of %s, %s to be %s: %v", a.name, member, want, err)
		}
		if slices.ContainsFunc(members, func(m client.Member) bool { return m.Name == member && m.Status == want }) {
			return
		}
		<-ticker.C
	}
}
