package gossip

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// copies are replicas with the same n cells, that are not linked.
func copies(t *testing.T, n int, names ...PeerID) (all []*Replicator) {
	t.Helper()
	first := newReplicator("origin", 99, Limits{})
	for i := range n {
		mustPut(t, first, start, fmt.Sprint("key", i))
	}
	for i, name := range names {
		cells := crdt.NewMapCells()
		for c := range first.Replica().Cells().(*crdt.MapCells).All() {
			cells.Add(c)
		}
		inc := crdt.Inc(i + 1)
		all = append(all, New(Config{Self: name, Rand: rand.New(rand.NewPCG(uint64(inc), 7))},
			crdt.State{Inc: inc, Cells: cells, Clock: first.Replica().Clock().Clone()}, cells.All()))
	}
	return all
}

// settleDown runs d of virtual time in ticks of 50 ms.
func settleDown(t *testing.T, now time.Time, d time.Duration, all ...*Replicator) time.Time {
	t.Helper()
	for end := now.Add(d); now.Before(end); now = now.Add(50 * time.Millisecond) {
		for _, r := range all {
			r.Tick(now)
		}
		pump(t, now, all...)
	}
	return now
}

// An empty replica is filled by one peer: of its zone, or else the nearest one,
// whichever side begins the sessions of the link.
func TestSponsorIsChosen(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(m *Replicator)
		want    PeerID
	}{
		"zone, the peer begins":    {func(m *Replicator) { m.SetNear("a", true); m.SetRTT("z", time.Millisecond) }, "a"},
		"zone, we begin":           {func(m *Replicator) { m.SetNear("z", true); m.SetRTT("a", time.Millisecond) }, "z"},
		"nearest, the peer begins": {func(m *Replicator) { m.SetRTT("a", time.Millisecond); m.SetRTT("z", 9*time.Millisecond) }, "a"},
		"nearest, we begin":        {func(m *Replicator) { m.SetRTT("a", 9*time.Millisecond); m.SetRTT("z", time.Millisecond) }, "z"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newReplicator("m", 50, Limits{})
			full := copies(t, 300, "a", "z")
			all := append(full, m)
			linkUp(start, all...)
			test.prepare(m)
			settleDown(t, start, 4*time.Second, all...)
			for _, r := range full {
				equalRoots(t, m, r)
				st := r.Stats()
				if sessions := st.SessionsOpened + st.SessionsAccepted; (sessions > 0) != (r.cfg.Self == test.want) {
					t.Errorf("%d sessions with %s, want them with %s alone", sessions, r.cfg.Self, test.want)
				}
			}
		})
	}
}

// A sponsor that is busy, or says nothing, is not waited for.
func TestBusySponsorIsLeft(t *testing.T) {
	for _, silent := range []bool{false, true} {
		m := newReplicator("m", 50, Limits{})
		full := copies(t, 300, "a", "z")
		all := append(full, m)
		linkUp(start, all...)
		favourite, other := full[1], full[0]
		if silent { // it begins the sessions of its link, and does not
			favourite, other = full[0], full[1]
			for favourite.cfg.Pace.Begin(true) {
			}
		} else {
			for favourite.cfg.Pace.Begin(false) {
			}
		}
		m.SetNear(favourite.cfg.Self, true)
		settleDown(t, start, 1500*time.Millisecond, all...)
		equalRoots(t, m, other)
		if st := favourite.Stats(); st.SessionsOpened+st.SessionsAccepted > 0 {
			t.Errorf("a session with who has no place")
		}
		if busy := m.Stats().BusyReceived; !silent && busy == 0 {
			t.Errorf("never told busy")
		}
	}
}

// The progress of a bootstrap is known from the first summary on.
func TestBootstrapProgress(t *testing.T) {
	const n = 5000
	m := newReplicator("m", 50, Limits{})
	a := copies(t, n, "z")[0]
	if m.Bootstrap().Running {
		t.Fatal("running without a peer")
	}
	linkUp(start, m, a)
	last, steps := 0, 0
	for moved := true; moved; {
		moved = carry(t, start, a, m, 8<<10)
		moved = carry(t, start, m, a, 8<<10) || moved
		b, st := m.Bootstrap(), m.Stats()
		if !b.Running {
			continue
		}
		if b.Total != n && b.Done > 0 || b.Done < last || b.Done > n {
			t.Fatalf("%+v after %d", b, last)
		}
		if st.Bootstrapping != 1 || st.BootstrapTotal != b.Total || st.BootstrapDone != b.Done {
			t.Fatalf("stats %d %d %d, want %+v", st.Bootstrapping, st.BootstrapTotal, st.BootstrapDone, b)
		}
		if b.Done > last {
			steps++
		}
		last = b.Done
	}
	if steps < 10 || last < n*9/10 {
		t.Errorf("%d steps up to %d", steps, last)
	}
	if b, st := m.Bootstrap(), m.Stats(); b.Running || st.Bootstrapping != 0 || st.Cells != n {
		t.Errorf("%+v after the end, %d cells", b, st.Cells)
	}
}

// Keyspaces that share a pace share its places and its rate, and give back what
// they took, however their sessions end.
func TestPaceIsShared(t *testing.T) {
	lim := Limits{InboundSessions: 1, OutboundSessions: 1, SessionBytes: 64 << 10}
	shared := NewSessionPace(lim)
	var hubs, peers []*Replicator
	for i := range 2 { // two keyspaces of one node
		pair := copies(t, 2000, "hub", "a")
		pair[0].cfg.Pace = shared
		for k := range 5000 {
			mustPut(t, pair[0], start, fmt.Sprint("new", i, k))
		}
		hubs, peers = append(hubs, pair[0]), append(peers, pair[1])
		linkUp(start, pair...)
	}
	now, busy := start, false
	for range 20 * 60 {
		for i := range hubs {
			hubs[i].Tick(now)
			peers[i].Tick(now)
			pump(t, now, hubs[i], peers[i])
		}
		busy = busy || hubs[0].Stats().Sessions+hubs[1].Stats().Sessions == 1
		if n := hubs[0].Stats().Sessions + hubs[1].Stats().Sessions; n > 1 {
			t.Fatalf("%d sessions at a time", n)
		}
		now = now.Add(50 * time.Millisecond)
	}
	var sent int64
	for i := range hubs {
		equalRoots(t, hubs[i], peers[i])
		sent += hubs[i].Stats().SessionBytesSent
	}
	if hubs[0].Stats().BusySent+hubs[1].Stats().BusySent == 0 || !busy {
		t.Error("none was told busy")
	}
	if shared.inbound != 1 || shared.outbound != 1 {
		t.Errorf("%d and %d places left", shared.inbound, shared.outbound)
	}
	if sent < 64<<10 { // or the rate was never reached
		t.Errorf("%d B sent", sent)
	}
}

// A replica that does not change costs one summary for each link and period, by
// one of the two sides, however many cells it holds.
func TestIdleSummaries(t *testing.T) {
	all := copies(t, 1000, "a", "b", "c")
	linkUp(start, all...)
	now := settleDown(t, start, 10*time.Second, all...)
	var before, after int64
	for _, r := range all {
		before += r.Stats().BytesSent
	}
	sent := func() (n int64) {
		for _, r := range all {
			n += r.Stats().SummariesSent
		}
		return n
	}
	summaries := sent()
	settleDown(t, now, 10*time.Minute, all...)
	for _, r := range all {
		after += r.Stats().BytesSent
	}
	// 3 links, every 22.5 to 30 s.
	if n := sent() - summaries; n < 3*20 || n > 3*27 {
		t.Errorf("%d summaries in 10 minutes", n)
	}
	if n := (after - before) / 10; n > 400 {
		t.Errorf("%d B a minute", n)
	}
}
