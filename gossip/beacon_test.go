package gossip

import (
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

func TestLagCells(t *testing.T) {
	for ms := int64(-3); ms < 1<<21; ms += 1 + ms/100 {
		i := lagCell(ms)
		if i < lagCells-1 && lagBound(i) <= time.Duration(ms)*time.Millisecond {
			t.Fatalf("%d ms is in cell %d, which ends at %s", ms, i, lagBound(i))
		}
		if i > 0 && lagBound(i-1) > time.Duration(ms)*time.Millisecond {
			t.Fatalf("%d ms is in cell %d, and the one before ends at %s", ms, i, lagBound(i-1))
		}
	}
}

func TestLagQuantiles(t *testing.T) {
	var g lags
	now := start.UnixNano()
	for i := range 1000 {
		ms := int64(1)
		if i >= 980 { // 2 %
			ms = 400
		}
		g.note(g.origin(7), ms, now)
	}
	want := LagSummary{Count: 1000, Sum: 8980 * time.Millisecond, Recent: 1000, P50: 2 * time.Millisecond, P99: 512 * time.Millisecond}
	if got := g.total.summary(); got != want {
		t.Errorf("total %+v, want %+v", got, want)
	}
	if got := g.origins[7].history.summary(); got != want {
		t.Errorf("origin %+v, want %+v", got, want)
	}
	g.tick(now)
	if got := g.total.summary(); got != want {
		t.Errorf("after one turn %+v, want %+v", got, want)
	}
	g.tick(now + int64(lagWindow))
	want = LagSummary{Count: want.Count, Sum: want.Sum}
	if got := g.total.summary(); got != want {
		t.Errorf("after the window %+v, want %+v", got, want)
	}
	if len(g.origins) != 0 {
		t.Error("a silent origin is kept beyond the window")
	}
}

func TestLagOriginsAreBounded(t *testing.T) {
	r := newReplicator("a", 1, Limits{})
	r.LinkUp(start, "b", RoleTree)
	r.LinkUp(start, "c", RoleTree)
	at := crdt.HLCAt(start.UnixMilli())
	for i := range maxOrigins + 10 {
		r.beacon(r.links["b"], beacon{origin: crdt.Inc(100 + i), at: at})
	}
	if n := len(r.lags.origins); n != maxOrigins {
		t.Errorf("%d origins are kept", n)
	}
	if n := len(r.links["c"].beacons); n != maxBeacons {
		t.Errorf("%d beacons wait", n)
	}
	if got, want := r.Stats().DropBeacon, int64(10+maxOrigins-maxBeacons); got != want {
		t.Errorf("%d drops counted, want %d", got, want)
	}
	if _, origins := r.Lags(20); len(origins) != 20 {
		t.Errorf("%d origins given, want 20", len(origins))
	}
}

// run lets d pass: ticks every 50 ms, frames at once.
func run(t *testing.T, now time.Time, d time.Duration, all ...*Replicator) time.Time {
	t.Helper()
	for end := now.Add(d); now.Before(end); {
		now = now.Add(50 * time.Millisecond)
		for _, r := range all {
			r.Tick(now)
		}
		pump(t, now, all...)
	}
	return now
}

// An origin that wrote says what time it is for a minute, and everybody hears
// each beacon, in a full mesh from the origin itself.
func TestBeaconsFollowWrites(t *testing.T) {
	a, b, c := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{}), newReplicator("c", 3, Limits{})
	linkUp(start, a, b, c)
	now := run(t, start, 5*time.Second, a, b, c)
	if a.Stats().BeaconsSent+b.Stats().BeaconsSent > 0 {
		t.Fatal("a keyspace into which nobody writes has beacons")
	}
	mustPut(t, a, now, "k")
	pump(t, now, a, b, c)
	now = run(t, now, time.Minute, a, b, c)
	if sent := a.Stats().BeaconsSent; sent != 2*11 {
		t.Errorf("%d beacons sent to two peers in the minute after a write, want 22", sent)
	}
	for _, r := range []*Replicator{b, c} {
		if got := r.Stats().BeaconsReceived; got != 11 {
			t.Errorf("%s: %d beacons received, want 11", r.cfg.Self, got)
		}
		_, origins := r.Lags(10)
		if len(origins) != 1 || origins[0].Origin != 1 || origins[0].Count != 12 || origins[0].P99 != time.Millisecond {
			t.Errorf("%s: %+v", r.cfg.Self, origins)
		}
	}
	before := a.Stats().BeaconsSent
	run(t, now, 2*time.Minute, a, b, c)
	if sent := a.Stats().BeaconsSent - before; sent != 0 {
		t.Errorf("%d beacons more than a minute after the last write", sent)
	}
}

// In a sparse overlay beacons go on from hop to hop, each once over a link at most.
func TestBeaconsCrossTrees(t *testing.T) {
	names := []PeerID{"a", "b", "c", "d"}
	var all []*Replicator
	for i, name := range names {
		all = append(all, newReplicator(name, crdt.Inc(i+1), Limits{}))
	}
	for i, r := range all { // a ring: a-b-c-d-a, and c says that it wants none from b
		n := len(all)
		r.LinkUp(start, names[(i+1)%n], RoleTree)
		r.LinkUp(start, names[(i+n-1)%n], RoleTree)
	}
	all[1].SetRole("c", RoleQuiet)
	now := run(t, start, 5*time.Second, all...)
	mustPut(t, all[0], now, "k")
	run(t, now, 30*time.Second, all...)
	for i, want := range []int64{0, 6, 6, 6} {
		r := all[i]
		_, origins := r.Lags(10)
		if want > 0 && (len(origins) != 1 || origins[0].Count < want) {
			t.Errorf("%s heard %+v, want %d beacons", r.cfg.Self, origins, want)
		}
		if got := r.Stats().BeaconsReceived; got > 2*want {
			t.Errorf("%s: %d beacons came over two links, for %d", r.cfg.Self, got, want)
		}
	}
}

func TestBeaconFarAheadIsDropped(t *testing.T) {
	r := newReplicator("a", 1, Limits{})
	r.LinkUp(start, "b", RoleTree)
	r.begin(start)
	r.beacon(r.links["b"], beacon{origin: 9, at: crdt.HLCAt(start.Add(time.Hour).UnixMilli())})
	r.beacon(r.links["b"], beacon{origin: 9, at: crdt.HLCAt(start.Add(time.Second).UnixMilli())})
	if st := r.Stats(); st.DropBeacon != 1 || r.lags.origins[9].history.count != 1 {
		t.Fatalf("%d dropped, %d noted", st.DropBeacon, r.lags.origins[9].history.count)
	}
}
