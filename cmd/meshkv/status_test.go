package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/meshkv/meshkv/client"
)

// troubled is a node with something to say in every part of its status.
func troubled(now time.Time) client.Status {
	st := client.Status{
		Name: "host-1", Inc: "66ddb6aa003a0f49", Version: "v0.1.0", MeshAddr: "10.0.0.1:7950", APIAddr: "10.0.0.1:7951",
		Uptime: 3*time.Hour + 2*time.Second, NotReady: []string{"keyspace overlay: 34,120 of 100,000 cells from host-3"},
		Members: map[client.MemberStatus]int{client.MemberAlive: 5, client.MemberFailed: 1},
		Storage: client.StorageStatus{Path: "data/host-1", Bytes: 12_345_678, LogBytes: 4_000, Backlog: 70_000, Lag: 3 * time.Millisecond},
		Clock:   client.ClockStatus{Offset: -1500 * time.Microsecond, Neighbours: 4},
		Drops:   map[string]uint64{"malformed_frame": 1234, "damaged_store": 0},
	}
	st.Keyspaces = []client.KeyspaceStatus{
		{Name: "endpoints", Keys: 123_456, Bytes: 98_765_432, Neighbours: 8, SessionsDone: 12,
			Lag:     client.LagStatus{Count: 1000, P50: time.Millisecond, P99: 12 * time.Millisecond},
			Origins: []client.OriginStatus{{Name: strings.Repeat("long-name-", 20), Heard: now.Add(-3 * time.Second), LagStatus: client.LagStatus{Count: 7, P50: time.Second, P99: 4 * time.Second}}}},
		{Name: "overlay", Keys: 34_000, Neighbours: 8, Bootstrap: client.BootstrapStatus{Running: true, Peer: "host-3", Done: 34_120, Total: 100_000}},
		{Name: "peers", Keys: 7, Neighbours: 8, Diverged: true, Divergences: []client.DivergenceStatus{
			{Peer: "host-4", Since: now.Add(-90 * time.Second), Reason: "the replicas differ, and nothing changes on either", Keys: []string{"10.0.0.7", strings.Repeat("k", 1024)}}}},
	}
	st.Strong = []client.StrongStatus{
		{Name: "locks", Role: "leader", Leader: "host-1", Revision: 12_345},
		{Name: "addresses", Role: "copy", Revision: 1_234_567, Behind: 12, Age: 90 * time.Second},
		{Name: strings.Repeat("long-name-", 20), Role: "follower", Leader: strings.Repeat("long-name-", 20), Revision: 1_234_567_890, Age: -1},
	}
	for i := range 30 {
		st.Links = append(st.Links, client.LinkStatus{Peer: fmt.Sprintf("host-%d", i+2), RTT: 300 * time.Microsecond, SentBytes: 1 << 30, RecvBytes: 1 << 20, Roles: map[string]int{"tree": 3}, InSync: 3})
	}
	st.Links[25].Queued, st.Links[25].QueuedBytes, st.Links[25].InSync = 65_000, 60<<20, 1
	return st
}

func TestStatusFitsATerminal(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var out strings.Builder
	if err := printStatus(&out, troubled(now), now); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + out.String())
	lines := strings.Split(out.String(), "\n")
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if len(lines) > 65 {
		t.Errorf("%d lines", len(lines))
	}
	before := func(a, b string) {
		t.Helper()
		if i, j := strings.Index(out.String(), a), strings.Index(out.String(), b); i < 0 || j < 0 || i > j {
			t.Errorf("%q is not before %q", a, b)
		}
	}
	before("peers  ", "overlay  ")   // an alarm comes first
	before("overlay  ", "endpoints") // and what is not complete second
	before("addresses  ", "locks  ") // what is behind comes first
	before("host-27", "host-2 ")
	before("filling 34%", "peers differs from host-4 for 1m30s")
	before("keyspace overlay: 34,120 of 100,000 cells from host-3", "LINK")
}

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", 123456: "123,456", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) is %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10_240: "10 KiB", 1_023_999: "1.0 MiB", 98_765_432: "94 MiB", 1 << 42: "4.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) is %s, want %s", n, got, want)
		}
	}
}
