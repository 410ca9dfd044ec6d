package gossip

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

const testOrigin = crdt.Inc(77 << 22)

func newMirror(self PeerID, inc crdt.Inc) *Replicator {
	return New(Config{Self: self, Origin: testOrigin}, crdt.State{Inc: inc, Cells: crdt.NewMapCells()}, nil)
}

// A history makes the ops of a strong keyspace.
type history struct {
	seq  uint64
	live map[string]uint64
}

func newHistory() *history { return &history{live: make(map[string]uint64)} }

func (w *history) op(now time.Time, key string, put bool) *crdt.Op {
	w.seq++
	dot, at := crdt.Dot{Inc: testOrigin, Seq: w.seq}, crdt.HLCAt(now.UnixMilli())
	op := &crdt.Op{Dot: dot, Key: key, HLC: at}
	if seq, ok := w.live[key]; ok {
		op.Removes = crdt.Dots{{Inc: testOrigin, Lo: seq, Hi: seq}}
	}
	delete(w.live, key)
	if put {
		op.Cell = &crdt.Cell{Key: key, Dot: dot, HLC: at, Kind: crdt.KindRegister}
		w.live[key] = w.seq
	}
	return op
}

func (w *history) put(now time.Time, key string) *crdt.Op    { return w.op(now, key, true) }
func (w *history) delete(now time.Time, key string) *crdt.Op { return w.op(now, key, false) }

func mustFeed(t testing.TB, r *Replicator, now time.Time, ops ...*crdt.Op) {
	t.Helper()
	if err := r.Feed(now, ops); err != nil {
		t.Fatal(err)
	}
}

// shown is the seq that key shows, or 0.
func shown(r *Replicator, key string) (seq uint64) {
	for _, c := range r.Replica().Cells().ByKey(key) {
		seq = max(seq, c.Dot.Seq)
	}
	return seq
}

// Ops that overtake others never bring back an older state of their key.
func TestMirrorShowsNothingOlder(t *testing.T) {
	w := newHistory()
	k := []*crdt.Op{
		w.put(start, "k"), w.put(start, "k"), w.delete(start, "k"), w.put(start, "k"), w.put(start, "k"), w.delete(start, "k"), w.put(start, "k"),
	}
	for _, c := range []struct {
		name  string
		order []int    // of ops, from 1
		want  []uint64 // what k shows after each
	}{
		{"in order", []int{1, 2, 3, 4}, []uint64{1, 2, 0, 4}},
		{"a deletion overtakes puts", []int{1, 4, 6, 5, 2, 3}, []uint64{1, 4, 0, 0, 0, 0}},
		{"a deletion of what is not here", []int{1, 6, 2, 3, 4, 5, 7}, []uint64{1, 0, 0, 0, 0, 0, 7}},
		{"a put after it", []int{1, 6, 7, 2, 5, 3, 4}, []uint64{1, 0, 7, 7, 7, 7, 7}},
		{"two deletions", []int{3, 6, 5, 2, 4, 1, 7}, []uint64{0, 0, 0, 0, 0, 0, 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newMirror("a", 1), newMirror("b", 2)
			linkUp(start, a, b)
			pump(t, start, a, b)
			for i, n := range c.order {
				mustFeed(t, a, start, k[n-1])
				pump(t, start, a, b)
				for _, r := range []*Replicator{a, b} {
					if got := shown(r, "k"); got != c.want[i] {
						t.Fatalf("%s after %v: shows %d, want %d", r.cfg.Self, c.order[:i+1], got, c.want[i])
					}
				}
			}
			if len(c.order) == len(k) && (len(a.mirror.deleted) > 0 || a.replica.PendingLen() > 0) {
				t.Errorf("left over: %v, %v", a.mirror.deleted, a.replica.Pending())
			}
		})
	}
}

// A session offers an older value of a key that was deleted since: it is not shown.
func TestMirrorRefusesLateCells(t *testing.T) {
	w := newHistory()
	one, two, missing, del := w.put(start, "x"), w.put(start, "k"), w.put(start, "k"), w.delete(start, "k")
	behind, ahead := newMirror("a", 1), newMirror("b", 2)
	mustFeed(t, behind, start, one, two)
	mustFeed(t, ahead, start, one, del)
	linkUp(start, behind, ahead)
	now := start
	for range 600 {
		now = now.Add(50 * time.Millisecond)
		behind.Tick(now)
		ahead.Tick(now)
		pump(t, now, behind, ahead)
		if got := shown(ahead, "k"); got != 0 {
			t.Fatalf("shows %d again", got)
		}
	}
	if ahead.Stats().SessionsDone == 0 || shown(behind, "k") != 0 {
		t.Fatalf("%d sessions; the one behind shows %d", ahead.Stats().SessionsDone, shown(behind, "k"))
	}
	mustFeed(t, behind, now, missing)
	pump(t, now, behind, ahead)
	if a, b := behind.Replica(), ahead.Replica(); a.Clock().Entry(testOrigin).Prefix != 4 || !a.Clock().Equal(b.Clock()) || a.Cells().Len() != b.Cells().Len() {
		t.Error("not equal after a session")
	}
}

// Three feeders and two others, in a full mesh: each op goes to each of the others
// once, and to no feeder.
func TestMirrorSendsEachOpOnce(t *testing.T) {
	for _, role := range []Role{RoleDirect, RoleTree} {
		t.Run(role.String(), func(t *testing.T) {
			var all []*Replicator
			for i := range 5 {
				all = append(all, newMirror(PeerID(fmt.Sprint(i)), crdt.Inc(i+1)))
			}
			for _, a := range all {
				for _, b := range all {
					if a != b {
						a.LinkUp(start, b.cfg.Self, role)
					}
				}
			}
			w, now := newHistory(), start
			var ops []*crdt.Op
			sent := func() (n int64) {
				for _, r := range all {
					n += r.Stats().OpsSent
				}
				return n
			}
			round := func() {
				op := w.put(now, fmt.Sprint(w.seq%10))
				ops = append(ops, op)
				for i := range 3 { // each applies the same log, the last one 200 ms after the others
					if i == 2 {
						if len(ops) <= 20 {
							continue
						}
						op, ops = ops[0], ops[1:]
					}
					mustFeed(t, all[i], now, op)
					pump(t, now, all...)
				}
				now = now.Add(10 * time.Millisecond)
				for _, r := range all {
					r.Tick(now)
				}
				pump(t, now, all...)
			}
			for i := range 400 { // the links learn, and those that were told twice are told again after a second
				if i == 150 { // and forget
					for _, r := range all[:4] {
						r.LinkUp(now, all[4].cfg.Self, role)
						all[4].LinkUp(now, r.cfg.Self, role)
						if r != all[2] {
							r.LinkUp(now, all[2].cfg.Self, role)
							all[2].LinkUp(now, r.cfg.Self, role)
						}
					}
				}
				round()
			}
			before := sent()
			for range 100 {
				round()
			}
			if got := sent() - before; got > 210 {
				t.Errorf("%d ops sent, want 2 for each of 100", got)
			}
			for _, r := range all {
				if got := r.MirrorPosition().Seq; got+20 < w.seq {
					t.Errorf("%s is at %d of %d", r.cfg.Self, got, w.seq)
				}
			}
		})
	}
}

// A feeder whose own source stands still gets the ops from the others.
func TestMirrorFeederThatStandsStill(t *testing.T) {
	all := []*Replicator{newMirror("a", 1), newMirror("b", 2)}
	linkUp(start, all...)
	w, now := newHistory(), start
	for i := range 500 {
		op := w.put(now, "k")
		mustFeed(t, all[0], now, op)
		if i < 100 {
			mustFeed(t, all[1], now, op)
		}
		now = now.Add(20 * time.Millisecond)
		for _, r := range all {
			r.Tick(now)
		}
		pump(t, now, all...)
	}
	if got := all[1].MirrorPosition().Seq; got+10 < w.seq {
		t.Errorf("at %d of %d", got, w.seq)
	}
	if s := all[1].Stats(); s.SessionsDone > 1 {
		t.Errorf("%d sessions", s.SessionsDone)
	}
}

// A feeder that lacks single ops, though it is fed others, asks its peers for them.
func TestMirrorFeederWithAGap(t *testing.T) {
	lim := Limits{SummaryEvery: time.Hour} // no session does it
	a := New(Config{Self: "a", Origin: testOrigin, Limits: lim}, crdt.State{Inc: 1, Cells: crdt.NewMapCells()}, nil)
	b := New(Config{Self: "b", Origin: testOrigin, Limits: lim}, crdt.State{Inc: 2, Cells: crdt.NewMapCells()}, nil)
	linkUp(start, a, b)
	pump(t, start, a, b)
	w, now := newHistory(), start
	for i := range 400 {
		op := w.put(now, "k")
		if i != 100 {
			mustFeed(t, b, now, op)
		}
		mustFeed(t, a, now, op)
		now = now.Add(20 * time.Millisecond)
		a.Tick(now)
		b.Tick(now)
		if i == 100 { // pruned since long
			if q := a.links["b"].queue; q.refs > 0 {
				t.Fatalf("%d ops are pushed to a feeder", q.refs)
			}
		}
		pump(t, now, a, b)
	}
	if got := b.MirrorPosition().Seq; got != w.seq {
		t.Errorf("at %d of %d", got, w.seq)
	}
}

func TestMirrorTakesNothingForeign(t *testing.T) {
	m, plain := newMirror("a", 1), newReplicator("b", 2, Limits{})
	m.LinkUp(start, "b", RoleDirect)
	plain.LinkUp(start, "a", RoleDirect)
	mustPut(t, plain, start, "k")
	pump(t, start, m, plain)
	for i := range 40 { // a session offers it, too
		now := start.Add(time.Duration(i) * 100 * time.Millisecond)
		m.Tick(now)
		plain.Tick(now)
		pump(t, now, m, plain)
	}
	if n := m.Replica().Cells().Len(); n != 0 {
		t.Errorf("%d cells", n)
	}
	if m.Stats().DropForeign < 2 {
		t.Errorf("%d counted", m.Stats().DropForeign)
	}
	bad := newHistory().put(start, "k")
	bad.Removes = crdt.Dots{{Inc: 3, Lo: 1, Hi: 1}}
	if err := m.Feed(start, []*crdt.Op{newHistory().put(start, "k"), bad}); !errors.Is(err, ErrForeign) || m.Replica().Cells().Len() != 0 {
		t.Errorf("fed foreign ops: %v, %d cells", err, m.Replica().Cells().Len())
	}
	if err := plain.Feed(start, []*crdt.Op{newHistory().put(start, "k")}); !errors.Is(err, ErrForeign) {
		t.Errorf("fed no mirror: %v", err)
	}
	if _, err := plain.BeginState(); !errors.Is(err, ErrForeign) {
		t.Errorf("began a state: %v", err)
	}
	if err := m.EndState(start, 1, nil, nil); !errors.Is(err, ErrFeed) {
		t.Errorf("ended what was not begun: %v", err)
	}
}

// feedState feeds the cells of live, as the state after seq. Between its steps, then runs.
func feedState(t testing.TB, r *Replicator, seq uint64, live map[string]uint64, between func()) {
	t.Helper()
	before, err := r.BeginState()
	if err != nil {
		t.Fatal(err)
	}
	holds := func(c *crdt.Cell) bool { return live[c.Key] == c.Dot.Seq }
	between()
	for key, s := range live {
		if before.Knows(s) {
			continue
		}
		c := &crdt.Cell{Key: key, Dot: crdt.Dot{Inc: testOrigin, Seq: s}, Kind: crdt.KindRegister}
		if err := r.SupplyState(start, []*crdt.Cell{c}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.mirror.state.arrived); n > 2 {
		t.Errorf("%d cells arrived from elsewhere", n)
	}
	dead := before.Dead(seq, holds)
	between()
	if err := r.EndState(start, seq, dead, holds); err != nil {
		t.Fatal(err)
	}
}

// A state that is fed replaces what is older, however much that is, and leaves what is
// newer. Ops that come meanwhile count.
func TestMirrorFedAState(t *testing.T) {
	w := newHistory()
	var ops []*crdt.Op
	for i := range 5000 {
		ops = append(ops, w.put(start, fmt.Sprintf("old%d", i)))
	}
	r := newMirror("a", 1)
	mustFeed(t, r, start, ops[:4000]...)
	for i := range 4990 { // more than the fuse would let pass
		ops = append(ops, w.delete(start, fmt.Sprintf("old%d", i)))
	}
	seq, live := w.seq, map[string]uint64{}
	for key, s := range w.live {
		live[key] = s
	}
	late := ops[4500] // put, and deleted before the state
	newer := []*crdt.Op{w.put(start, "new"), w.put(start, "old4999")}
	turn := 0
	feedState(t, r, seq, live, func() {
		turn++
		mustFeed(t, r, start, late)
		mustFeed(t, r, start, newer[turn-1])
	})
	if got := r.Replica().Cells().Len(); got != len(w.live) {
		t.Errorf("%d cells, want %d", got, len(w.live))
	}
	for key, s := range w.live {
		if got := shown(r, key); got != s {
			t.Errorf("%s shows %d, want %d", key, got, s)
		}
	}
	if p := r.MirrorPosition(); p.Seq != w.seq {
		t.Errorf("at %d of %d", p.Seq, w.seq)
	}
	feedState(t, r, 4000, map[string]uint64{"old1": 2}, func() {}) // an older one
	if got := r.Replica().Cells().Len(); got != len(w.live) || r.replica.PendingLen() > 0 {
		t.Errorf("after an older state: %d cells, want %d", got, len(w.live))
	}
}

func TestMirrorPosition(t *testing.T) {
	a, b := newMirror("a", 1), newMirror("b", 2)
	if got := newReplicator("c", 3, Limits{}).MirrorPosition(); got != (MirrorPosition{}) {
		t.Errorf("of no mirror: %+v", got)
	}
	linkUp(start, a, b)
	pump(t, start, a, b)
	w := newHistory()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	ms := func(s int) crdt.HLC { return crdt.HLCAt(at(s).UnixMilli()) }
	mustFeed(t, a, at(1), w.put(start, "k"))
	a.Announce(at(1), 1, 2)
	pump(t, at(1), a, b)
	if got, want := b.MirrorPosition(), (MirrorPosition{1, 1, Position{1, 2, ms(1)}}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	a.Announce(at(2), 5, 7) // whose ops are not here yet
	pump(t, at(2), a, b)
	a.Announce(at(3), 6, 8)
	pump(t, at(3), a, b)
	if got, want := b.MirrorPosition(), (MirrorPosition{1, 6, Position{1, 2, ms(1)}}); got != want {
		t.Errorf("behind: got %+v, want %+v", got, want)
	}
	for range 4 {
		mustFeed(t, b, at(3), w.put(start, "k"))
	}
	if got, want := b.MirrorPosition(), (MirrorPosition{5, 6, Position{5, 7, ms(2)}}); got != want {
		t.Errorf("closer: got %+v, want %+v", got, want)
	}
	b.Announce(at(2), 5, 7) // says nothing new
	mustFeed(t, b, at(3), w.put(start, "k"))
	b.Announce(start, 7, 9) // another one, whose clock is behind
	mustFeed(t, b, at(3), w.put(start, "k"))
	if got, want := b.MirrorPosition(), (MirrorPosition{7, 7, Position{7, 9, ms(3)}}); got != want {
		t.Errorf("another feeder: got %+v, want %+v", got, want)
	}
	for i := range uint64(10 * maxWaiting) { // far behind for long
		b.Announce(at(4), 100+i, i)
	}
	if n := len(b.mirror.waiting); n > maxWaiting {
		t.Errorf("%d positions are waited for", n)
	}
	if p := b.mirror.waiting; p[len(p)-1].Seq != 99+10*maxWaiting || p[0].Seq != 100 || !slices.IsSortedFunc(p, func(x, y Position) int { return int(x.Seq) - int(y.Seq) }) {
		t.Errorf("waiting: %v", p)
	}
}

// Announcements reach all nodes of a sparse overlay.
func TestMirrorPositionInATree(t *testing.T) {
	f := newForest(t, 40, 1, Limits{})
	for _, r := range f.nodes {
		r.mirror.origin = testOrigin
	}
	for range 5 {
		f.nodes[0].Announce(f.now, 9, 4)
		f.run(1000)
	}
	for _, r := range f.nodes {
		if got := r.MirrorPosition().Newest; got != 9 {
			t.Errorf("%s knows of %d", r.cfg.Self, got)
		}
		links := int64(len(r.order))
		if r != f.nodes[0] {
			links-- // not to whom it has it from
		}
		if got := r.Stats().BeaconsSent; got > 5*links {
			t.Errorf("%s sent %d over %d links", r.cfg.Self, got, links)
		}
	}
}
