package gossip

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

var ackSchedules = flag.Int("ack-schedules", 12, "number of random schedules of acknowledgements")

// acked is how many members have acknowledged seq of the incarnation of node i, as
// far as it knows.
func (f *forest) acked(i int, seq uint64, synced bool) (n int) {
	a := f.nodes[i].acks.of(f.nodes[i].Replica().Inc())
	if a == nil {
		return 0
	}
	for _, row := range a.rows {
		if synced && row.Synced >= seq || !synced && row.Applied >= seq {
			n++
		}
	}
	return n
}

// putAsking is a write that asks for acknowledgements.
func (f *forest) putAsking(i int, key string, synced bool) crdt.Dot {
	d := mustPut(f.t, f.nodes[i], f.now, key)
	f.nodes[i].AskAcks(f.now, d.Seq, synced)
	return d
}

// ackedBy runs until so many members have acknowledged d.
func (f *forest) untilAcked(i int, d crdt.Dot, synced bool, want, most int) (ms int) {
	f.t.Helper()
	for ; f.acked(i, d.Seq, synced) < want; ms++ {
		if ms >= most {
			f.t.Fatalf("%d of %d acknowledged %v after %d ms", f.acked(i, d.Seq, synced), want, d, ms)
		}
		f.run(1)
		f.check(i)
	}
	return ms
}

// check compares what node i believes with what its members have. Nobody who has a
// dot loses it in these tests, but by a restart, and then it has a new incarnation.
func (f *forest) check(i int) {
	f.t.Helper()
	origin := f.nodes[i].Replica().Inc()
	a := f.nodes[i].acks.of(origin)
	if a == nil {
		return
	}
	for _, row := range a.rows {
		for _, r := range f.nodes {
			if r.Replica().Inc() != row.Member {
				continue
			}
			if has := r.Replica().Clock().Entry(origin).Prefix; row.Applied > has {
				f.t.Fatalf("%v is said to have %d dots of %v, and has %d", row.Member, row.Applied, origin, has)
			}
		}
		if row.Synced > row.Applied {
			f.t.Fatalf("more on disk than applied: %+v", row)
		}
	}
}

// sync has every replica told that all is on disk.
func (f *forest) sync() {
	for _, r := range f.nodes {
		r.Synced(f.now, r.TakeUnsynced())
	}
}

func TestAcksInAMesh(t *testing.T) {
	f := newForest(t, 9, 1, Limits{})
	before := f.ackStats()
	d := f.putAsking(0, "k", false)
	if ms := f.untilAcked(0, d, false, 8, 10); ms > 4 {
		t.Errorf("acknowledged after %d hops", ms)
	}
	f.nodes[0].AwaitAcks(f.now, nil)
	f.run(300)
	after := f.ackStats()
	if asks, acks := after.AsksSent-before.AsksSent, after.AcksSent-before.AcksSent; asks != 8 || acks != 8 {
		t.Errorf("%d asks and %d acknowledgements for 8 members", asks, acks)
	}
	if after.AsksRepeated != 0 {
		t.Errorf("asked %d times more", after.AsksRepeated)
	}
}

func (f *forest) ackStats() (s Stats) {
	for _, r := range f.nodes {
		x := r.Stats()
		s.AsksSent += x.AsksSent
		s.AsksRepeated += x.AsksRepeated
		s.AcksSent += x.AcksSent
		s.DropAck += x.DropAck
		s.DropAsk += x.DropAsk
	}
	return s
}

func TestAcksInATree(t *testing.T) {
	f := newForest(t, 40, 2, Limits{})
	f.learn(7)
	d := f.putAsking(7, "k", false)
	if ms := f.untilAcked(7, d, false, 39, 30); ms > 20 {
		t.Errorf("acknowledged after %d hops", ms)
	}
	f.nodes[7].AwaitAcks(f.now, nil)
	f.run(300)
	st := f.ackStats()
	if st.AsksSent > 60 || st.AcksSent > 39*6 || st.AsksRepeated > 0 {
		t.Errorf("%d asks, %d acknowledgements, asked again %d times", st.AsksSent, st.AcksSent, st.AsksRepeated)
	}
}

// One acknowledgement stands for all before it.
func TestAcksOfManyWritesAreFew(t *testing.T) {
	f := newForest(t, 3, 3, Limits{})
	var last crdt.Dot
	for i := range 500 {
		last = f.putAsking(0, fmt.Sprint(i), false)
	}
	f.untilAcked(0, last, false, 2, 50)
	if st := f.ackStats(); st.AsksSent > 20 || st.AcksSent > 20 {
		t.Errorf("%d asks, %d acknowledgements of 500 writes", st.AsksSent, st.AcksSent)
	}
}

func TestAcksCostNothingUnused(t *testing.T) {
	f := newForest(t, 12, 4, Limits{})
	for i := range 50 {
		mustPut(t, f.nodes[i%12], f.now, fmt.Sprint(i))
		f.run(5)
	}
	f.run(2000)
	if st := f.ackStats(); st.AsksSent+st.AcksSent != 0 {
		t.Errorf("%d asks, %d acknowledgements, and nobody wants any", st.AsksSent, st.AcksSent)
	}
	for _, r := range f.nodes {
		if len(r.acks.order) != 0 {
			t.Fatal("an ask is remembered that nobody made")
		}
	}
}

// What is above a gap is not acknowledged: the origin's first op may never come.
func TestAcksStopAtAGap(t *testing.T) {
	r := newReplicator("a", 9, Limits{})
	r.LinkUp(start, "b", RoleDirect)
	w := newWriter(1)
	first, second := w.put(t, "k", ""), w.put(t, "l", "")
	e := crdt.NewEncoder()
	appendAsk(e, ask{origin: 1, round: 1, applied: 2, synced: 2})
	appendOp(e, second)
	if err := r.Step(start, "b", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	if dots := r.TakeUnsynced(); len(dots) > 0 || len(r.acks.of(1).rows) > 0 {
		t.Fatalf("acknowledged above a gap: %v, %v", dots, r.acks.of(1).rows)
	}
	if err := r.Step(start, "b", encoded(first)); err != nil {
		t.Fatal(err)
	}
	if dots := r.TakeUnsynced(); len(dots) != 1 || len(r.acks.of(1).rows) != 1 || r.acks.of(1).rows[0].Ack != (Ack{9, 2, 0}) {
		t.Fatalf("%v, %v", dots, r.acks.of(1).rows)
	}
}

// What is applied is not on disk until the owner says so.
func TestAcksOfTheDisk(t *testing.T) {
	f := newForest(t, 3, 5, Limits{})
	f.untilAcked(0, f.putAsking(0, "k", false), false, 2, 10)
	d := f.putAsking(0, "k", true)
	f.run(200)
	if n := f.acked(0, d.Seq, true); n != 0 {
		t.Fatalf("%d members have it on disk, and none said so", n)
	}
	if dots := f.nodes[1].TakeUnsynced(); len(dots) != 1 || dots[0] != d {
		t.Fatalf("to be synced: %v", dots)
	} else {
		f.nodes[1].Synced(f.now, dots)
	}
	f.untilAcked(0, d, true, 1, 10)
	f.sync()
	f.untilAcked(0, d, true, 2, 10)
	if dots := f.nodes[2].TakeUnsynced(); dots != nil {
		t.Fatalf("to be synced again: %v", dots)
	}
}

// A member that was cut off gets the op by a session, and says so.
func TestAcksAfterASession(t *testing.T) {
	f := newForest(t, 3, 6, Limits{RingOps: 1})
	f.cut(0, 2)
	f.cut(1, 2)
	d := f.putAsking(0, "k", false)
	f.untilAcked(0, d, false, 1, 50)
	mustPut(t, f.nodes[0], f.now, "other") // the ring forgets the first
	f.run(200)
	f.heal(1, 2, RoleDirect)
	f.spreads(d, 5000)
	if ms := f.untilAcked(0, d, false, 2, 5000); ms > 5 {
		t.Errorf("acknowledged %d ms after it arrived", ms) // the link asked as soon as it was up
	}
	if n := f.nodes[2].Stats().SessionsDone; n == 0 {
		t.Error("no session")
	}
}

// The ops of several writes coalesce on the way, and the newest stands for all.
func TestAcksOfCoalescedOps(t *testing.T) {
	f := newForest(t, 2, 7, Limits{})
	for i := range 40 { // so that the queue coalesces
		mustPut(t, f.nodes[0], f.now, fmt.Sprint(i))
	}
	var d crdt.Dot
	for range 10 {
		d = f.putAsking(0, "k", false)
	}
	f.untilAcked(0, d, false, 1, 10)
	if n := f.nodes[0].Stats().OpsCoalesced; n == 0 {
		t.Error("nothing coalesced")
	}
}

// Every link of a node on the way breaks, one after the other, while rows are on
// their way.
func TestAcksOutliveLinks(t *testing.T) {
	f := newForest(t, 40, 8, Limits{})
	f.learn(0)
	for round := range 20 {
		d := f.putAsking(0, fmt.Sprint("k", round), false)
		f.run(2)
		var cut [][2]int
		for i := 1 + round; i < 40; i += 10 { // the way back of every tenth node
			if a := f.nodes[i].acks.of(1); a != nil && a.parent != nil {
				for _, j := range f.peers[i] {
					if f.nodes[j].cfg.Self == a.parent.peer && !f.down[pair(i, j)] {
						f.cut(i, j)
						cut = append(cut, pair(i, j))
						break
					}
				}
			}
		}
		f.untilAcked(0, d, false, 39, 3000)
		f.nodes[0].AwaitAcks(f.now, nil)
		for _, p := range cut {
			f.heal(p[0], p[1], RoleTree)
		}
		f.run(60)
	}
}

// Loss of frames, cuts, partitions, and restarts with and without what was held;
// then nothing but time, and all have acknowledged. Nobody is ever said to have
// what it has not.
func TestAcksBesideTheTruth(t *testing.T) {
	for seed := range uint64(*ackSchedules) {
		ackSchedule(t, seed)
	}
}

func ackSchedule(t *testing.T, seed uint64) {
	nodes := 6 + int(seed%3)*17
	f := newForest(t, nodes, seed, Limits{})
	rng := rand.New(rand.NewPCG(seed, 9))
	role := RoleTree
	if nodes <= 9 {
		role = RoleDirect
	}
	fresh := crdt.Inc(1000)
	origins := []int{0, nodes / 2}
	last := make(map[int]crdt.Dot)
	f.lost = func(int, int, []byte) bool { return rng.IntN(50) == 0 }
	for range 60 {
		i := rng.IntN(nodes)
		j := f.peers[i][rng.IntN(len(f.peers[i]))]
		switch rng.IntN(8) {
		case 0, 1:
			if f.down[pair(i, j)] {
				f.heal(i, j, role)
			} else {
				f.cut(i, j)
			}
		case 2:
			if i != origins[0] && i != origins[1] {
				fresh++
				f.restart(i, fresh, role, rng.IntN(2) == 0)
			}
		default:
			o := origins[rng.IntN(2)]
			last[o] = f.putAsking(o, fmt.Sprint("k", rng.IntN(20)), true)
		}
		f.run(rng.IntN(40))
		f.sync()
		f.check(origins[0])
		f.check(origins[1])
	}
	f.lost = nil
	for i := range f.nodes {
		for _, j := range f.peers[i] {
			if f.down[pair(i, j)] {
				f.heal(i, j, role)
			}
		}
	}
	for _, o := range origins {
		d, ok := last[o]
		for ms := 0; ok && f.missing(o, d) > 0; ms += 50 {
			if ms > 60_000 {
				t.Fatalf("seed %d: %d of %d have not acknowledged %v", seed, f.missing(o, d), nodes-1, d)
			}
			f.run(50)
			f.sync()
			f.check(o)
		}
	}
}

// missing is how many members, as they are now, have not acknowledged d.
func (f *forest) missing(o int, d crdt.Dot) (n int) {
	a := f.nodes[o].acks.of(d.Inc)
	for i, r := range f.nodes {
		if i == o {
			continue
		}
		if row := a.row(r.Replica().Inc()); row == nil || row.Synced < d.Seq {
			n++
		}
	}
	return n
}

// restart replaces a node by one of another incarnation, which has what it held or
// nothing.
func (f *forest) restart(i int, inc crdt.Inc, role Role, empty bool) {
	old := f.nodes[i]
	for _, j := range f.peers[i] {
		f.nodes[j].LinkDown(old.cfg.Self)
	}
	st := crdt.State{Inc: inc, Cells: crdt.NewMapCells()}
	if !empty {
		st.Clock, st.Pending = old.Replica().Clock().Clone(), old.Replica().Pending()
		for c := range old.Replica().Cells().(*crdt.MapCells).All() {
			st.Cells.Add(c)
		}
	}
	cells := st.Cells.(*crdt.MapCells)
	f.nodes[i] = New(Config{Self: old.cfg.Self, Rand: rand.New(rand.NewPCG(uint64(inc), 7))}, st, cells.All())
	for _, j := range f.peers[i] {
		if !f.down[pair(i, j)] {
			f.heal(i, j, role)
		}
	}
}

func TestAcksAreBounded(t *testing.T) {
	r := newReplicator("a", 1, Limits{})
	r.LinkUp(start, "b", RoleDirect)
	e := crdt.NewEncoder()
	for i := range maxAckOrigins + 10 {
		appendAsk(e, ask{origin: crdt.Inc(100 + i), round: 1, applied: 1})
	}
	for i := range maxAckRows + 10 {
		appendRows(e, crdt.Inc(100+maxAckOrigins), []Ack{{Member: crdt.Inc(1000 + i), Applied: 1}})
	}
	if err := r.Step(start, "b", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.acks.order); n != maxAckOrigins {
		t.Errorf("%d origins are remembered", n)
	}
	if st := r.Stats(); st.DropAsk != 10 || st.DropAck != 10 {
		t.Errorf("%d origins and %d rows dropped", st.DropAsk, st.DropAck)
	}
	rows := 0
	for ok := true; ok; {
		var frame []byte
		if frame, ok = r.NextFrame(start, "b", nil, 64<<10); len(frame) > 32<<10 {
			t.Fatalf("frame of %d bytes", len(frame))
		}
		rows++
	}
	if st := r.Stats(); st.AcksSent != maxAckRows {
		t.Errorf("%d rows told in %d frames", st.AcksSent, rows)
	}
	r.Tick(start.Add(time.Duration(askedFor)))
	if n := len(r.acks.order); n != 0 {
		t.Errorf("%d origins are remembered for ever", n)
	}
}

func TestAckMessages(t *testing.T) {
	e := crdt.NewEncoder()
	appendAsk(e, ask{origin: 7, round: 3, applied: 10, synced: 9, wide: true})
	appendRows(e, 7, []Ack{{1, 10, 9}, {2, 8, 0}})
	d := crdt.NewDecoder()
	d.Reset(e.Bytes())
	if kind, n, err := takeHead(d); kind != kindAsk || n != 5 || err != nil {
		t.Fatal(kind, n, err)
	}
	if a, err := takeAsk(d); err != nil || a != (ask{7, 3, 10, 9, true}) {
		t.Fatal(a, err)
	}
	if kind, n, err := takeHead(d); kind != kindAcks || n != 2 || err != nil {
		t.Fatal(kind, n, err)
	}
	if origin, rows, err := takeRows(d); err != nil || origin != 7 || len(rows) != 2 || rows[0] != (Ack{1, 10, 9}) || rows[1] != (Ack{2, 8, 0}) {
		t.Fatal(origin, rows, err)
	}
	d.Reset([]byte{7, 0x92, 1, 1}) // two thirds of a row
	if _, _, err := takeRows(d); err == nil {
		t.Error("part of a row was taken")
	}
}
