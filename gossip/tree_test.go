package gossip

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/overlay"
)

// forest is replicators over an overlay. A frame takes a step, of 1 ms, links are
// in order and otherwise served by chance.
type forest struct {
	t     testing.TB
	now   time.Time
	steps int
	pace  time.Duration // of a step
	rng   *rand.Rand
	nodes []*Replicator
	peers [][]int // by node, those that a link is up to
	down  map[[2]int]bool
	lost  func(from, to int, frame []byte) bool
}

func newForest(t testing.TB, n int, seed uint64, lim Limits) *forest {
	f := &forest{t: t, now: start, pace: time.Millisecond, rng: rand.New(rand.NewPCG(seed, 1)), down: make(map[[2]int]bool)}
	var members []overlay.Member
	index := make(map[string]int)
	for i := range n {
		name := fmt.Sprintf("n%03d", i)
		index[name] = i
		members = append(members, overlay.Member{Name: name, Zone: fmt.Sprint(i % 3)})
		f.nodes = append(f.nodes, newReplicator(PeerID(name), crdt.Inc(i+1), lim))
	}
	o := overlay.New(members)
	f.peers = make([][]int, n)
	for i, r := range f.nodes {
		names, complete := o.Neighbours(members[i].Name)
		role := RoleTree
		if complete {
			role = RoleDirect
		}
		for _, name := range names {
			f.peers[i] = append(f.peers[i], index[name])
			r.LinkUp(f.now, PeerID(name), role)
		}
	}
	f.run(100)
	return f
}

type flight struct {
	from, to int
	frame    []byte
}

// run passes so many steps: milliseconds, unless another pace is set.
func (f *forest) run(ms int) {
	f.t.Helper()
	for range ms {
		f.now = f.now.Add(f.pace)
		f.steps++
		var flights []flight
		for i, r := range f.nodes {
			if f.steps%50 == i%50 {
				r.Tick(f.now)
			}
			r.Changes().Reset()
			for _, j := range f.peers[i] {
				for !f.down[pair(i, j)] {
					frame, ok := r.NextFrame(f.now, f.nodes[j].cfg.Self, nil, 64<<10)
					if !ok {
						break
					}
					if f.lost == nil || !f.lost(i, j, frame) {
						flights = append(flights, flight{i, j, frame})
					}
				}
			}
		}
		salt := f.rng.Uint64() | 1
		at := func(x flight) uint64 { return bits.Reverse64(uint64(x.from<<16|x.to+1) * salt) }
		slices.SortStableFunc(flights, func(a, b flight) int { // by chance between links, in order on each
			return cmp.Compare(at(a), at(b))
		})
		for _, x := range flights {
			if err := f.nodes[x.to].Step(f.now, f.nodes[x.from].cfg.Self, x.frame); err != nil {
				f.t.Fatal(err)
			}
		}
	}
}

func pair(i, j int) [2]int { return [2]int{min(i, j), max(i, j)} }

// cut takes a link down on both sides, and heal up again.
func (f *forest) cut(i, j int) {
	f.down[pair(i, j)] = true
	f.nodes[i].LinkDown(f.nodes[j].cfg.Self)
	f.nodes[j].LinkDown(f.nodes[i].cfg.Self)
}

func (f *forest) heal(i, j int, role Role) {
	delete(f.down, pair(i, j))
	f.nodes[i].LinkUp(f.now, f.nodes[j].cfg.Self, role)
	f.nodes[j].LinkUp(f.now, f.nodes[i].cfg.Self, role)
}

// lacking is the number of nodes that do not know d.
func (f *forest) lacking(d crdt.Dot) (n int) {
	for _, r := range f.nodes {
		if !r.Replica().Clock().Contains(d) {
			n++
		}
	}
	return n
}

// spreads runs until everybody knows d, and returns how long that took.
func (f *forest) spreads(d crdt.Dot, most int) (ms int) {
	f.t.Helper()
	for ; f.lacking(d) > 0; ms++ {
		if ms >= most {
			f.t.Fatalf("%d nodes lack %v after %d ms", f.lacking(d), d, ms)
		}
		f.run(1)
	}
	return ms
}

// total is the stats of all nodes, as far as the tests want them.
func (f *forest) total() (s Stats) {
	for _, r := range f.nodes {
		x := r.Stats()
		s.OpsReceived += x.OpsReceived
		s.OpsDuplicate += x.OpsDuplicate
		s.GraftsSent += x.GraftsSent
		s.PrunesSent += x.PrunesSent
		s.SessionsOpened += x.SessionsOpened
		s.IHavesSent += x.IHavesSent
		s.LargeSent += x.LargeSent
		s.BytesSent += x.BytesSent
		s.LinksEager += x.LinksEager
		s.Overflows += x.Overflows
		s.BehindReceived += x.BehindReceived
	}
	return s
}

func (f *forest) learn(origins ...int) {
	for k := range 5 {
		for _, i := range origins {
			mustPut(f.t, f.nodes[i], f.now, fmt.Sprint("learn", k))
			f.run(2)
		}
		f.run(20)
	}
	f.run(300)
}

func TestTreeOf64(t *testing.T) {
	f := newForest(t, 64, 1, Limits{})
	origins := []int{3, 17, 40, 63}
	f.learn(origins...)
	before := f.total()
	const rounds = 30
	slowest := 0
	var all []crdt.Dot
	for k := range rounds {
		for _, i := range origins {
			all = append(all, mustPut(t, f.nodes[i], f.now, fmt.Sprint("k", k)))
		}
		slowest = max(slowest, f.spreads(all[len(all)-1], 50))
	}
	f.run(300)
	for _, d := range all {
		if n := f.lacking(d); n > 0 {
			t.Fatalf("%d nodes lack %v", n, d)
		}
	}
	after := f.total()
	copies := float64(after.OpsReceived-before.OpsReceived) / float64(len(all)*63)
	t.Logf("%.3f copies, last node after %d hops, %d grafts", copies, slowest, after.GraftsSent-before.GraftsSent)
	if copies > 1.05 || copies < 1 {
		t.Errorf("%.3f copies per node", copies)
	}
	if after.GraftsSent != before.GraftsSent || after.SessionsOpened != before.SessionsOpened {
		t.Error("the quiet tree needed repair")
	}
	if after.LinksEager < 63*len(origins) {
		t.Errorf("%d eager links", after.LinksEager)
	}
}

// Every link of the tree of an origin: the op after its loss still reaches
// everybody, by announcement, and the ones after that directly again.
func TestTreeOutlivesEveryLink(t *testing.T) {
	const origin = 5
	f := newForest(t, 24, 2, Limits{})
	f.learn(origin)
	before := f.total()
	n := 0
	for i := range f.nodes {
		for _, j := range f.peers[i] {
			if i > j {
				continue
			}
			n++
			f.cut(i, j)
			f.spreads(mustPut(t, f.nodes[origin], f.now, fmt.Sprint("cut", n)), 250)
			f.run(5)
			if ms := f.spreads(mustPut(t, f.nodes[origin], f.now, fmt.Sprint("then", n)), 250); ms > 20 {
				t.Errorf("without link %d-%d the repaired tree takes %d ms", i, j, ms)
			}
			f.heal(i, j, RoleTree)
			f.run(60)
		}
	}
	f.learn(origin)
	after := f.total()
	if after.GraftsSent == before.GraftsSent {
		t.Error("no link was ever missed")
	}
	if n != 24*8/2 && n < 80 {
		t.Errorf("%d links", n)
	}
	before = after
	for k := range 50 {
		f.spreads(mustPut(t, f.nodes[origin], f.now, fmt.Sprint("last", k)), 50)
	}
	f.run(100)
	if copies := float64(f.total().OpsReceived-before.OpsReceived) / (50 * 23); copies > 1.05 {
		t.Errorf("%.3f copies after all repairs", copies)
	}
}

// Any overlay, origins and losses: everybody gets everything, and the trees come
// back to one copy.
func TestTreesUnderLoss(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 26).Draw(rt, "nodes")
		f := newForest(t, n, rapid.Uint64Range(0, 1000).Draw(rt, "seed"), Limits{
			Origins: rapid.SampledFrom([]int{2, 65_536}).Draw(rt, "origins"),
		})
		var all []crdt.Dot
		for k := range rapid.IntRange(1, 15).Draw(rt, "steps") {
			i := rapid.IntRange(0, n-1).Draw(rt, "node")
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0:
				j := f.peers[i][rapid.IntRange(0, len(f.peers[i])-1).Draw(rt, "peer")]
				role := RoleTree
				if n <= overlay.MaxComplete {
					role = RoleDirect
				}
				if f.down[pair(i, j)] {
					f.heal(i, j, role)
				} else {
					f.cut(i, j)
				}
			case 1:
				f.nodes[i].SetChoked(f.now, !f.nodes[i].Choked())
			default:
				for x := range rapid.IntRange(1, 5).Draw(rt, "ops") {
					all = append(all, mustPut(t, f.nodes[i], f.now, fmt.Sprint(k, x)))
				}
			}
			f.run(rapid.IntRange(0, 120).Draw(rt, "ms"))
		}
		for p := range f.down {
			role := RoleTree
			if n <= overlay.MaxComplete {
				role = RoleDirect
			}
			f.heal(p[0], p[1], role)
		}
		for _, r := range f.nodes {
			r.SetChoked(f.now, false)
		}
		for range 100 {
			f.run(200)
			if !slices.ContainsFunc(f.nodes, func(r *Replicator) bool { return r.root() != f.nodes[0].root() }) {
				break
			}
		}
		for i, r := range f.nodes {
			if r.root() != f.nodes[0].root() {
				t.Fatalf("node %d differs", i)
			}
		}
		for _, d := range all {
			if f.lacking(d) > 0 {
				t.Fatalf("%v is lacking", d)
			}
		}
	})
}

// What waits when a PRUNE comes is announced, not sent: a burst from an origin
// that the trees do not know yet does not flood them with all of it.
func TestPruneTakesBackWhatWaits(t *testing.T) {
	f := newForest(t, 24, 3, Limits{})
	const puts = 3000
	var last crdt.Dot
	for k := range puts {
		last = mustPut(t, f.nodes[0], f.now, fmt.Sprint(k))
		if k%300 == 299 {
			f.oneFrame(1 << 10)
		}
	}
	for range 5000 {
		if f.lacking(last) == 0 {
			break
		}
		f.oneFrame(1 << 10)
	}
	f.run(200)
	if n := f.lacking(last); n > 0 {
		t.Fatalf("%d nodes lack the last", n)
	}
	s := f.total()
	t.Logf("%d grafts, %d prunes", s.GraftsSent, s.PrunesSent)
	if copies := float64(s.OpsReceived) / (puts * 23); copies > 1.25 || s.SessionsOpened > 0 {
		t.Errorf("%.2f copies of a burst, %d sessions", copies, s.SessionsOpened)
	}
	unqueued := int64(0)
	for _, r := range f.nodes {
		unqueued += r.Stats().OpsUnqueued
	}
	if unqueued == 0 {
		t.Error("nothing was taken back")
	}
}

// oneFrame passes a millisecond in which a link carries one frame at most.
func (f *forest) oneFrame(limit int) {
	f.now = f.now.Add(time.Millisecond)
	f.steps++
	var flights []flight
	for i, r := range f.nodes {
		if f.steps%50 == i%50 {
			r.Tick(f.now)
		}
		for _, j := range f.peers[i] {
			if frame, ok := r.NextFrame(f.now, f.nodes[j].cfg.Self, nil, limit); ok {
				flights = append(flights, flight{i, j, frame})
			}
		}
	}
	f.rng.Shuffle(len(flights), func(a, b int) { flights[a], flights[b] = flights[b], flights[a] })
	for _, x := range flights {
		if err := f.nodes[x.to].Step(f.now, f.nodes[x.from].cfg.Self, x.frame); err != nil {
			f.t.Fatal(err)
		}
	}
}

// The table of origins is bounded: the least recently used goes, and its marks
// with it.
func TestOriginsAreBounded(t *testing.T) {
	tr := newTree(3)
	l := &link{}
	tr.join(l)
	for inc := crdt.Inc(1); inc <= 3; inc++ {
		tr.touch(inc).set(l, 0, pruned)
	}
	tr.touch(1)
	tr.touch(4)
	if tr.origins[2] != nil || tr.origins[1] == nil || len(tr.origins) != 3 || tr.evicted != 1 {
		t.Fatalf("%v, %d evicted", tr.origins, tr.evicted)
	}
	if tr.touch(2).mark(l) != 0 {
		t.Fatal("marks of a forgotten origin")
	}
	var order []crdt.Inc
	for o := tr.oldest; o != nil; o = o.newer {
		order = append(order, o.inc)
	}
	if !slices.Equal(order, []crdt.Inc{1, 4, 2}) {
		t.Fatalf("order %v", order)
	}
	tr.touch(1).setParent(l, 1)
	tr.leave(l)
	if o := tr.origins[1]; o.mark(l) != 0 || o.from() != nil {
		t.Fatal("marks of a link that is gone")
	}
	other := &link{}
	tr.join(other)
	if other.slot != 0 {
		t.Fatalf("slot %d", other.slot)
	}
}

// What a link does with the ops of an origin, by role and marks.
func TestEager(t *testing.T) {
	for _, tc := range []struct {
		role  Role
		own   bool
		marks mark
		want  bool
	}{
		{RoleDirect, true, 0, true},
		{RoleDirect, true, pruned, false},
		{RoleDirect, false, 0, false},
		{RoleDirect, false, grafted, true},
		{RoleDirect, true, grafted, true},
		{RoleTree, true, 0, true},
		{RoleTree, false, 0, true},
		{RoleTree, false, refused, true},
		{RoleTree, false, pruned, false},
		{RoleTree, true, pruned, false},
		{RoleQuiet, true, 0, false},
		{RoleQuiet, true, grafted, false},
	} {
		r := newReplicator("r", 1, Limits{})
		r.LinkUp(start, "p", tc.role)
		l := r.links["p"]
		inc := crdt.Inc(2)
		if tc.own {
			inc = 1
		}
		o := r.tree.touch(inc)
		o.set(l, 0, tc.marks)
		if got := r.eager(l, o); got != tc.want {
			t.Errorf("%v, own %v, marks %b: %v", tc.role, tc.own, tc.marks, got)
		}
	}
}

// The parent of an origin, and who is pruned, by what arrives in which order.
func TestParents(t *testing.T) {
	type arrival struct {
		peer PeerID
		seq  int
	}
	w := newWriter(7)
	ops := []*crdt.Op{w.put(t, "1", ""), w.put(t, "2", ""), w.put(t, "3", "")}
	for name, tc := range map[string]struct {
		role     Role
		arrivals []arrival
		parent   PeerID
		pruned   map[PeerID]int
	}{
		"the first":                 {RoleTree, []arrival{{"a", 1}}, "a", nil},
		"a duplicate":               {RoleTree, []arrival{{"a", 1}, {"b", 1}}, "a", map[PeerID]int{"b": 1}},
		"from the parent":           {RoleTree, []arrival{{"a", 1}, {"a", 1}}, "a", nil},
		"told once":                 {RoleTree, []arrival{{"a", 1}, {"b", 1}, {"a", 2}, {"b", 2}}, "a", map[PeerID]int{"b": 1}},
		"a faster one":              {RoleTree, []arrival{{"a", 1}, {"b", 2}, {"a", 2}}, "b", map[PeerID]int{"a": 1}},
		"pruned, and still faster":  {RoleTree, []arrival{{"a", 1}, {"b", 1}, {"b", 2}, {"a", 2}}, "a", map[PeerID]int{"b": 1}},
		"the origin in a full mesh": {RoleDirect, []arrival{{"a", 1}, {"origin", 1}, {"a", 2}, {"origin", 2}}, "origin", map[PeerID]int{"a": 1}},
		"all of them":               {RoleTree, []arrival{{"a", 1}, {"b", 1}, {"c", 1}, {"a", 2}, {"a", 3}}, "a", map[PeerID]int{"b": 1, "c": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplicator("r", 9, Limits{})
			for _, p := range []PeerID{"a", "b", "c", "origin"} {
				r.LinkUp(start, p, tc.role)
			}
			r.links["origin"].peerInc = 7
			for _, x := range tc.arrivals {
				if err := r.Step(start, x.peer, encoded(ops[x.seq-1])); err != nil {
					t.Fatal(err)
				}
			}
			o := r.tree.origins[7]
			if p := o.from(); p == nil || p.peer != tc.parent {
				t.Errorf("parent %v", p)
			}
			for _, l := range r.order {
				if len(l.prune) != tc.pruned[l.peer] {
					t.Errorf("%s: %d prunes, want %d", l.peer, len(l.prune), tc.pruned[l.peer])
				}
			}
		})
	}
}

// A peer that forgot a PRUNE gets another; our own ops coming back bring one,
// too.
func TestPruneAgain(t *testing.T) {
	r := newReplicator("r", 9, Limits{})
	r.LinkUp(start, "a", RoleTree)
	r.LinkUp(start, "b", RoleTree)
	op := newWriter(7).put(t, "k", "")
	step := func(now time.Time, p PeerID, op *crdt.Op) {
		t.Helper()
		if err := r.Step(now, p, encoded(op)); err != nil {
			t.Fatal(err)
		}
	}
	step(start, "a", op)
	step(start, "b", op)
	step(start.Add(999*time.Millisecond), "b", op)
	if got := r.links["b"].prune; !slices.Equal(got, []crdt.Inc{7}) {
		t.Fatalf("prunes %v", got)
	}
	step(start.Add(time.Second), "b", op)
	if got := r.links["b"].prune; !slices.Equal(got, []crdt.Inc{7, 7}) {
		t.Fatalf("prunes %v", got)
	}
	mustPut(t, r, start, "own")
	step(start, "a", r.ring.at(r.ring.ops.Len()-1).op)
	if got := r.links["a"].prune; !slices.Equal(got, []crdt.Inc{9}) {
		t.Fatalf("prunes %v", got)
	}
}
