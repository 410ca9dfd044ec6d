package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/meshkv/meshkv/crdt"
)

// Small domains, so that writes meet.
var (
	keys  = []string{"a", "b", "c"}
	paths = []string{"", "", "p"}
)

const (
	maxNodes    = 5
	maxQueue    = 16 // ops on one link; a random one is lost beyond
	maxSessions = 4
	maxImages   = 8
	checkEvery  = 10 // steps
)

// A message is one op on its way, twice.
type message struct {
	real *crdt.Op
	ref  *refOp
}

// A violation ends a schedule.
type violation struct {
	step int
	text string
}

// A world is one schedule.
type world struct {
	rng      *rand.Rand
	bug      bug
	step     int
	now      int64 // ms; the clocks of nodes are around it
	nodes    []*node
	queues   [maxNodes][maxNodes][]message // by sender and receiver
	sessions []*session
	images   []*image
	owners   []int // of images, by node
	issued   map[crdt.Dot]*crdtOp
	lastInc  crdt.Inc
	values   int
	scratch  dotSet
	enc      *crdt.Encoder
	dec      *crdt.Decoder
	actions  []func()
	bounds   []int // cumulative weights of actions
	tally    tally
	seals
}

// A tally counts what happened in schedules: a fault that never happens proves
// nothing.
type tally struct {
	Puts, Deletes, Batches, BornDeadInBatch, Collected, Applied, Ignored, Lost, Doubled, Coalesced, BornDead int
	Provided, Refused, Concluded, Aborted, DiedWithProcess                                                   int
	RestartsFromLast, RestartsFromOlder, RestartsFromNothing                                                 int
	Left, Closed, Renewed, Quiesced                                                                          int
	Published, Decided, Agreed, Retired, Reaped, Rejected                                                    int
}

// crdtOp is what an op did when it was issued.
type crdtOp struct {
	cell    *crdt.Cell
	removes []crdt.Dot
}

func newWorld(seed uint64, b bug) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), bug: b, now: 1000, issued: map[crdt.Dot]*crdtOp{}, scratch: dotSet{},
		enc: crdt.NewEncoder(), dec: crdt.NewDecoder(),
	}
	for id := range 2 + w.rng.IntN(maxNodes-1) {
		n := &node{id: id, skew: int64(w.rng.IntN(40) - 20)}
		n.boot(newImage(), w.mint(), 0)
		n.met = true // nobody has anything
		w.nodes = append(w.nodes, n)
	}
	w.seals = w.newSeals()
	// Each schedule draws how often it does what, so that some do little else.
	total := 0
	for _, a := range []struct {
		weight int
		do     func()
	}{
		{100, w.put}, {25, w.delete}, {40, w.batch}, {10, w.collect}, {120, w.deliver}, {60, w.coalesce},
		{25, w.openSession}, {100, w.advanceSession}, {10, w.abortSession},
		{20, w.save}, {8, w.restart}, {4, w.leave}, {20, w.close}, {15, w.tick}, {1, w.quiesce},
		{60, w.publish}, {30, w.decide}, {60, w.agree}, {2, w.reap}, {20, w.refresh}, {8, w.calm},
	} {
		total += a.weight * []int{0, 1, 2, 2, 4}[w.rng.IntN(5)]
		w.actions, w.bounds = append(w.actions, a.do), append(w.bounds, total)
	}
	if w.bounds[0] == 0 { // without puts nothing happens
		for i := range w.bounds {
			w.bounds[i] += 100
		}
	}
	return w
}

func (w *world) fail(format string, args ...any) {
	panic(violation{w.step, fmt.Sprintf(format, args...)})
}

// run plays the schedule of a seed and returns what happened and what was
// violated, if anything.
func run(seed uint64, steps int, b bug) (happened tally, found *violation) {
	w := newWorld(seed, b)
	defer func() {
		happened = w.tally
		switch p := recover().(type) {
		case nil:
		case violation:
			found = &p
		default:
			found = &violation{w.step, fmt.Sprintf("panic: %v", p)}
		}
	}()
	for w.step = 1; w.step <= steps; w.step++ {
		x := w.rng.IntN(w.bounds[len(w.bounds)-1])
		i, exact := slices.BinarySearch(w.bounds, x)
		if exact {
			i++
			for w.bounds[i] == x {
				i++
			}
		}
		w.actions[i]()
		if w.step%checkEvery == 0 {
			w.check(w.nodes[w.rng.IntN(len(w.nodes))])
		}
	}
	w.quiesce()
	return w.tally, nil
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *world) node() *node { return w.nodes[w.rng.IntN(len(w.nodes))] }

func (w *world) mint() crdt.Inc {
	w.lastInc++
	return w.lastInc
}

func (w *world) hlc(n *node) crdt.HLC { return crdt.HLC(w.now + n.skew + int64(w.rng.IntN(4))) }

// issue compares the op of the replica with that of the reference, records it
// and puts it on every link.
func (w *world) issue(n *node, ops []*crdt.Op, ref *refOp) {
	if len(ops) == 0 && ref == nil {
		return
	}
	if len(ops) != 1 || ref == nil {
		w.fail("node %d: issued %d ops, the reference %v", n.id, len(ops), ref != nil)
	}
	op := ops[0]
	if w.issued[op.Dot] != nil {
		w.fail("node %d: issued %v a second time", n.id, op.Dot)
	}
	w.compare(op, ref)
	for _, d := range ref.covers { // of what came and went within a batch, nothing is left
		w.issued[d] = &crdtOp{}
	}
	for _, c := range op.More {
		w.issued[c.Dot] = &crdtOp{cell: c}
	}
	w.issued[op.Dot] = &crdtOp{cell: op.Cell, removes: ref.removes}
	for to := range w.nodes {
		if to != n.id {
			w.enqueue(n.id, to, message{op, ref})
		}
	}
	w.settle(n)
}

func (w *world) compare(op *crdt.Op, ref *refOp) {
	same := op.Dot == ref.own && op.Key == ref.key && (op.Cell == nil) == (ref.cell == nil)
	if same && op.Cell != nil {
		same = sameCell(op.Cell, ref.cell)
	}
	same = same && slices.EqualFunc(op.More, ref.more, sameCell)
	covers := op.Covers.With(crdt.Span{Inc: op.Dot.Inc, Lo: op.Dot.Seq, Hi: op.Dot.Seq})
	if !same || !sameDots(covers, ref.covers) || !sameDots(op.Removes, ref.removes) {
		w.fail("op %+v differs from the reference's %+v", op, ref)
	}
}

func sameDots(s crdt.Dots, list []crdt.Dot) bool {
	return slices.Equal(s, crdt.DotsOf(list...))
}

func (w *world) enqueue(from, to int, m message) {
	q := append(w.queues[from][to], m)
	if len(q) > maxQueue {
		w.tally.Lost++
		i := w.rng.IntN(len(q))
		q = slices.Delete(q, i, i+1)
	}
	w.queues[from][to] = q
}

func (w *world) put() {
	n := w.writer()
	write := w.write()
	write.Path, write.HLC = paths[w.rng.IntN(len(paths))], w.hlc(n)
	ops, err := n.real.Put(write)
	if err != nil {
		w.fail("put: %v", err)
	}
	w.tally.Puts++
	w.issue(n, ops, n.ref.put(write))
}

func (w *world) write() crdt.Write {
	w.values++
	write := crdt.Write{Key: keys[w.rng.IntN(len(keys))], Kind: crdt.KindRegister, Value: []byte(strconv.Itoa(w.values))}
	if w.chance(15) {
		write.Expires = w.now + int64(w.rng.IntN(60))
	}
	if w.chance(15) {
		write.Flags = crdt.FlagEphemeral
	}
	return write
}

// batch makes some puts and deletes in one op.
func (w *world) batch() {
	n := w.writer()
	at := w.hlc(n)
	d := n.real.Draft(at, func(*crdt.Cell) bool { return true })
	changes := make([]change, 1+w.rng.IntN(5))
	for i := range changes {
		ch := change{put: w.chance(75), write: w.write()}
		var err error
		if ch.put {
			err = d.Put(ch.write.Key, ch.write.Value, crdt.Lifetime{Flags: ch.write.Flags, Expires: ch.write.Expires})
		} else {
			err = d.Delete(ch.write.Key)
		}
		if err != nil {
			w.fail("batch: %v", err)
		}
		changes[i] = ch
	}
	if w.chance(10) {
		return // given up
	}
	w.tally.Batches++
	w.issue(n, n.real.Commit(d), n.ref.batch(changes, at))
}

func (w *world) delete() {
	n, key := w.writer(), keys[w.rng.IntN(len(keys))]
	w.tally.Deletes++
	w.issue(n, n.real.Delete(key, w.hlc(n)), n.ref.remove(key, func(c *crdt.Cell) bool { return c.Key == key }))
}

// collect removes what is hidden for ever, and now and then the loser of two
// siblings.
func (w *world) collect() {
	n := w.writer()
	doomed := dotSet{}
	var dots []crdt.Dot
	for c := range n.cells.All() {
		expired := c.Expires > 0 && c.Expires <= w.now+n.skew
		orphan := c.Ephemeral() && n.real.Clock().Entry(c.Dot.Inc).Closed
		if (expired || orphan || w.chance(3)) && w.chance(80) {
			dots, doomed[c.Dot] = append(dots, c.Dot), true
		}
	}
	if w.bug == bugLocalExpiry {
		for _, d := range dots {
			w.dropBehindTheRules(n, d)
		}
		return
	}
	w.tally.Collected += len(dots)
	w.issue(n, n.real.Remove(dots, w.hlc(n)), n.ref.remove("", func(c *crdt.Cell) bool { return doomed[c.Dot] }))
}

// dropBehindTheRules is what some failed drafts did.
func (w *world) dropBehindTheRules(n *node, d crdt.Dot) {
	if c := n.cells.ByDot(d); c != nil {
		n.cells.Remove(c)
		delete(n.disk.cells, d)
		delete(n.ref.S, d)
	}
}

// link is a random link with something on it, or nil.
func (w *world) link() (q *[]message, to int) {
	from := w.rng.IntN(len(w.nodes))
	for i := range len(w.nodes) * len(w.nodes) {
		f, t := (from+i/len(w.nodes))%len(w.nodes), (from+i)%len(w.nodes)
		if len(w.queues[f][t]) > 0 {
			return &w.queues[f][t], t
		}
	}
	return nil, 0
}

// deliver takes some ops off a link: in any order, some lost, some doubled.
func (w *world) deliver() {
	q, to := w.link()
	for range 1 + w.rng.IntN(6) {
		if q == nil || len(*q) == 0 {
			return
		}
		i := 0
		if w.chance(30) {
			i = w.rng.IntN(len(*q))
		}
		m := (*q)[i]
		fate := w.rng.IntN(100)
		if fate < 10 {
			w.tally.Doubled++
		} else {
			*q = slices.Delete(*q, i, i+1)
		}
		if fate < 90 {
			w.apply(w.nodes[to], m)
		} else {
			w.tally.Lost++
		}
	}
}

func (w *world) apply(n *node, m message) {
	op := m.real
	if w.chance(10) {
		op = w.recode(op)
	}
	if n.ref.D[m.ref.own] && op.Cell != nil {
		w.tally.BornDead++
	}
	for _, c := range op.More {
		if n.ref.D[c.Dot] {
			w.tally.BornDeadInBatch++
		}
	}
	got, want := n.real.Apply(op), n.ref.apply(m.ref)
	if got != want {
		w.fail("node %d: %v was news: %v, in the reference %v", n.id, op.Dot, got, want)
	}
	if got {
		w.tally.Applied++
	} else {
		w.tally.Ignored++
	}
	w.settle(n)
	if w.chance(10) { // passed on
		if to := w.rng.IntN(len(w.nodes)); to != n.id {
			w.enqueue(n.id, to, m)
		}
	}
}

// recode is the op as another process would get it.
func (w *world) recode(op *crdt.Op) *crdt.Op {
	w.enc.Reset(w.enc.Bytes()[:0])
	encode, decode := w.enc.Op, w.dec.Op
	if len(op.More) > 0 {
		encode, decode = w.enc.Batch, w.dec.Batch
	}
	encode(op)
	w.dec.Reset(w.enc.Bytes())
	again, err := decode()
	if err != nil {
		w.fail("op %+v: %v", op, err)
	}
	return again
}

// coalesce tries to merge the ops of one link, in whatever order they stand.
func (w *world) coalesce() {
	q, _ := w.link()
	if q == nil || len(*q) < 2 {
		return
	}
	for range 4 {
		i, j := w.rng.IntN(len(*q)), w.rng.IntN(len(*q))
		if i == j || len(*q) < 2 {
			continue
		}
		older, newer := (*q)[i], (*q)[j]
		real, ref := crdt.Coalesce(older.real, newer.real), refCoalesce(older.ref, newer.ref)
		if (real == nil) != (ref == nil) {
			w.fail("%+v and %+v coalesce: %v, in the reference %v", older.real, newer.real, real != nil, ref != nil)
		}
		if real != nil {
			w.tally.Coalesced++
			w.compare(real, ref)
			(*q)[j] = message{real, ref}
			*q = slices.Delete(*q, i, i+1)
		}
	}
}

// save keeps a copy of a data directory: what an asynchronous writer has got
// to, or a backup.
func (w *world) save() {
	n := w.node()
	im := n.image(w.chance(30))
	if len(w.images) < maxImages {
		w.images, w.owners = append(w.images, im), append(w.owners, n.id)
		return
	}
	i := w.rng.IntN(maxImages)
	w.images[i], w.owners[i] = im, n.id
}

// restart kills a process and starts it again: from what it had last, from an
// older copy, perhaps another node's, or from nothing.
func (w *world) restart() {
	n := w.node()
	old := n.real.Inc()
	from := newImage()
	switch x := w.rng.IntN(100); {
	case x < 40:
		w.tally.RestartsFromLast++
		from = n.image(w.chance(30))
	case x < 80 && len(w.images) > 0 && !w.orderly:
		i := w.rng.IntN(len(w.images))
		if w.owners[i] == n.id || w.chance(40) {
			w.tally.RestartsFromOlder++
			from = w.images[i]
		}
	default:
		w.tally.RestartsFromNothing++
	}
	w.unplug(n)
	inc, seq := w.mint(), uint64(0)
	switch w.bug {
	case bugKeepInc:
		inc, seq = old, from.clock.Entry(old).Max()
	case bugKeepCleanInc:
		if from.clean {
			inc, seq = from.inc, from.seq
		}
	case bugClockWithoutCells:
		bare := *from
		bare.cells, bare.ref = map[crdt.Dot]*crdt.Cell{}, from.ref.copy()
		clear(bare.ref.S)
		from = &bare
	case bugForgetPending:
		bare := *from
		bare.pending, bare.ref = dotSet{}, from.ref.copy()
		clear(bare.ref.D)
		from = &bare
	}
	n.boot(from, inc, seq)
	w.learnHorizon(n)
	if w.chance(70) && inc != old {
		w.closeAt(n, old)
	}
	w.check(n)
}

// unplug ends the sessions of a node, and what was on its way to it. What it
// had sent may still arrive.
func (w *world) unplug(n *node) {
	if w.bug != bugSessionSurvives {
		before := len(w.sessions)
		w.sessions = slices.DeleteFunc(w.sessions, func(s *session) bool { return s.a.node == n || s.b.node == n })
		w.tally.DiedWithProcess += before - len(w.sessions)
	}
	for other := range w.nodes {
		w.queues[other][n.id] = nil
		if w.chance(50) {
			w.queues[n.id][other] = nil
		}
	}
}

// leave makes a node leave the keyspace and join it again with nothing: after a
// completed session with a member, and going on with its sequence.
func (w *world) leave() {
	n, member := w.node(), w.node()
	if n == member {
		return
	}
	if w.bug != bugLeaveAtOnce {
		w.fullSession(n, member)
	}
	lost := crdt.Dots(nil)
	n.knows(func(d crdt.Dot) {
		if !member.real.Clock().Contains(d) {
			lost = lost.With(crdt.Span{Inc: d.Inc, Lo: d.Seq, Hi: d.Seq})
		}
	})
	for c := range n.cells.All() {
		if d := c.Dot; !member.real.Clock().Contains(d) && !member.real.IsPending(d) && member.cells.ByDot(d) == nil {
			lost = lost.With(crdt.Span{Inc: d.Inc, Lo: d.Seq, Hi: d.Seq})
		}
	}
	if lost != nil {
		w.fail("node %d: took %v along when it left", n.id, lost)
	}
	w.tally.Left++
	w.unplug(n)
	inc, seq := n.real.Inc(), n.real.Seq()
	if w.bug == bugSeqRestarts {
		seq = 0
	}
	n.boot(newImage(), inc, seq)
	w.surveys[n.id] = survey{}
}

// close closes an incarnation somewhere: mostly one that has ended, sometimes
// one that lives. One that learns of that takes a new Inc.
func (w *world) close() {
	n := w.node()
	if n.real.Clock().Entry(n.real.Inc()).Closed {
		w.renew(n)
		return
	}
	inc := crdt.Inc(1 + w.rng.IntN(int(w.lastInc)))
	for first := crdt.Inc(1); w.chance(50) && first < inc; first++ { // the oldest that is not
		if e := n.real.Clock().Entry(first); !e.Closed && e.Max() > 0 {
			inc = first
		}
	}
	alive := slices.ContainsFunc(w.nodes, func(n *node) bool { return n.real.Inc() == inc })
	if alive && (w.orderly || !w.chance(20)) {
		return
	}
	w.closeAt(n, inc)
}

func (w *world) closeAt(n *node, inc crdt.Inc) {
	if w.bug == bugCloseEvent { // tell everybody once, which hides what it holds
		for _, other := range w.nodes {
			if other == n || w.chance(70) {
				for c := range other.cells.All() {
					if c.Ephemeral() && c.Dot.Inc == inc {
						other.hidden[c.Dot] = true
					}
				}
			}
		}
		return
	}
	if got, want := n.real.Close(inc), !n.ref.closed[inc] && !n.ref.retired(inc); got != want {
		w.fail("node %d: closing %v was news: %v, in the reference %v", n.id, inc, got, want)
	}
	w.tally.Closed++
	if !n.ref.retired(inc) {
		n.ref.closed[inc] = true
	}
	w.settle(n)
}

func (w *world) tick() { w.now += int64(1 + w.rng.IntN(30)) }

// drain empties the links, delivering all or nothing of each, and ends the
// sessions.
func (w *world) drain() {
	for from := range w.nodes {
		for to := range w.nodes {
			q := w.queues[from][to]
			w.queues[from][to] = nil
			for _, m := range q {
				if w.chance(50) {
					w.apply(w.nodes[to], m)
				}
			}
		}
	}
	for i := range w.queues {
		for j := range w.queues[i] {
			w.queues[i][j] = nil
		}
	}
	w.sessions = nil
}
