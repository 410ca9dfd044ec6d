package gossip

import (
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

const (
	// repruneAfter is how long a peer that was told not to push an origin may go
	// on before it is told again: it may have forgotten that origin.
	repruneAfter = int64(time.Second)
	// provenAfter is how long the small ops of an origin have gone over a link
	// without a PRUNE, so that large ones may, too.
	provenAfter = int64(time.Second)
)

// mark says how the ops of one origin go over one link, as far as that is not
// what the role of the link says.
type mark uint8

const (
	pruned  mark = 1 << iota // the peer has them from elsewhere: announce
	grafted                  // the peer asked for them: push
	tried                    // a small one was pushed
	refused                  // we told the peer that we have them from elsewhere
)

// origin is what is remembered of the ops of one incarnation.
type origin struct {
	inc      crdt.Inc
	parent   *link // whose pushes are the first to arrive, if its epoch is still epoch
	epoch    int
	heardAt  int64   // when the parent last brought a new op
	secondAt int64   // when the present second of count began
	count    int     // ops that the parent brought in it
	before   int     // and in the second before, if that was not long ago
	pushedAt int64   // when the first small op was pushed, or 0
	marks    []mark  // by slot of the link; beyond: none
	prunedAt []int64 // by slot: when the peer was last told to push none; beyond: never

	older, newer *origin
}

// mark is how the ops of o go over l.
func (o *origin) mark(l *link) mark {
	if l.slot < len(o.marks) {
		return o.marks[l.slot]
	}
	return 0
}

// set changes the marks of o on l: first clear, then set.
func (o *origin) set(l *link, clear, set mark) {
	old := o.mark(l)
	m := old&^clear | set
	if m == old {
		return
	}
	for l.slot >= len(o.marks) {
		o.marks = append(o.marks, 0)
	}
	o.marks[l.slot] = m
	l.marked = true
}

// toldAt is when the peer of l was last told to push none of o, or 0.
func (o *origin) toldAt(l *link) int64 {
	if l.slot < len(o.prunedAt) {
		return o.prunedAt[l.slot]
	}
	return 0
}

// tell takes note that the peer of l is told to push none of o.
func (o *origin) tell(l *link, nowNs int64) {
	o.set(l, 0, refused)
	for l.slot >= len(o.prunedAt) {
		o.prunedAt = append(o.prunedAt, 0)
	}
	o.prunedAt[l.slot] = nowNs
}

// from is the link that brings the ops of o first, or nil.
func (o *origin) from() *link {
	if o.parent == nil || o.parent.epoch != o.epoch {
		return nil
	}
	return o.parent
}

func (o *origin) setParent(l *link, nowNs int64) {
	o.parent, o.epoch, o.heardAt = l, l.epoch, nowNs
	if age := nowNs - o.secondAt; age >= int64(time.Second) {
		o.before = 0
		if age < 2*int64(time.Second) {
			o.before = o.count
		}
		o.secondAt, o.count = nowNs, 0
	}
	o.count++
}

// steady reports whether ops of o have come by the dozen lately.
func (o *origin) steady(nowNs int64) bool {
	return nowNs-o.secondAt < 2*int64(time.Second) && max(o.count, o.before) >= steadyOps
}

// tree is what is remembered of the origins: at most max of them, least
// recently used first out. Every link has a slot.
type tree struct {
	max            int
	origins        map[crdt.Inc]*origin
	oldest, newest *origin
	slots          []*link
	evicted        int64
}

func newTree(max int) tree { return tree{max: max, origins: make(map[crdt.Inc]*origin)} }

// touch is the origin of inc, made now if it is not known, as the most recently
// used.
func (t *tree) touch(inc crdt.Inc) *origin {
	if t.newest != nil && t.newest.inc == inc {
		return t.newest
	}
	o := t.origins[inc]
	if o != nil {
		t.unlink(o)
	} else {
		if len(t.origins) >= t.max {
			t.evicted++
			delete(t.origins, t.oldest.inc)
			t.unlink(t.oldest)
		}
		o = &origin{inc: inc}
		t.origins[inc] = o
	}
	if o.older = t.newest; o.older != nil {
		o.older.newer = o
	} else {
		t.oldest = o
	}
	t.newest = o
	return o
}

// known is the origin of inc, if it is one: a peer may name any.
func (t *tree) known(inc crdt.Inc) *origin { return t.origins[inc] }

func (t *tree) unlink(o *origin) {
	if o.older != nil {
		o.older.newer = o.newer
	} else {
		t.oldest = o.newer
	}
	if o.newer != nil {
		o.newer.older = o.older
	} else {
		t.newest = o.older
	}
	o.older, o.newer = nil, nil
}

// join gives l a slot.
func (t *tree) join(l *link) {
	for i, x := range t.slots {
		if x == nil {
			t.slots[i], l.slot = l, i
			return
		}
	}
	l.slot = len(t.slots)
	t.slots = append(t.slots, l)
}

// unmark forgets how the ops of all origins go over l, and that any come first
// from there.
func (t *tree) unmark(l *link) {
	l.epoch++
	if !l.marked {
		return
	}
	l.marked = false
	for o := t.oldest; o != nil; o = o.newer {
		o.set(l, ^mark(0), 0)
	}
	l.marked = false
}

// leave takes the slot of l back.
func (t *tree) leave(l *link) {
	t.unmark(l)
	t.slots[l.slot] = nil
	for o := t.oldest; o != nil; o = o.newer {
		if o.parent == l {
			o.parent = nil // or it would be kept
		}
	}
}

// eager reports whether the ops of o are pushed on l.
func (r *Replicator) eager(l *link, o *origin) bool {
	switch l.role {
	case RoleTree:
		return o.mark(l)&pruned == 0
	case RoleDirect:
		return o.mark(l)&grafted != 0 || r.mints(o.inc) && o.mark(l)&pruned == 0
	}
	return false
}

// proven reports whether a large op of o that is pushed on l will be news there,
// as far as one can know: the first ops of an origin flood all links until the
// prunes come back.
func (r *Replicator) proven(l *link, o *origin) bool {
	m := o.mark(l)
	return l.role == RoleDirect || m&grafted != 0 ||
		m&tried != 0 && r.nowNs-max(o.pushedAt, l.since) >= provenAfter
}

// spread sends an op that is new here on every link but the one that it came
// from, nil if it was minted here: at once where the tree of its origin says so,
// announced elsewhere.
func (r *Replicator) spread(from *link, op *crdt.Op) {
	r.ring.push(r.nowNs, op)
	o := r.tree.touch(op.Dot.Inc)
	bytes := opBytes(op)
	large := bytes > r.cfg.Limits.LargeBytes
	for _, l := range r.order {
		switch {
		case l == from || l.role == RoleQuiet:
		case !r.eager(l, o) || large && !r.proven(l, o):
			r.announceOp(l, op, large)
		default:
			if !large {
				if o.pushedAt == 0 {
					o.pushedAt = r.nowNs
				}
				o.set(l, 0, tried)
			}
			r.enqueue(l, op, bytes)
		}
	}
	r.spend()
}

// firstHand reports whether l leads to the origin itself, in a full mesh. Its
// own pushes are then preferred to those of others, whoever is faster.
func firstHand(l *link, o *origin) bool { return l.role == RoleDirect && l.peerInc == o.inc }

// delivered takes note that l brought a new op of o: it is the parent from now
// on, unless it was told to push none. Such a push was under way when the PRUNE
// was, and no other will follow.
func (r *Replicator) delivered(l *link, o *origin) {
	if o.inc == r.replica.Inc() {
		return
	}
	if r.selfServed(o.inc) {
		r.prune(l, o)
		return
	}
	if o.mark(l)&refused != 0 {
		if o.from() != nil || r.nowNs-o.toldAt(l) < repruneAfter {
			return
		}
		o.set(l, refused, 0) // it forgot, and nobody else brings them
	}
	if p := o.from(); p != nil && p != l && firstHand(p, o) {
		return
	}
	o.setParent(l, r.nowNs)
}

// duplicated takes note that l brought an op of o that was known. Unless l is
// the parent, which a session may have outrun, its pushes are for nothing.
func (r *Replicator) duplicated(l *link, o *origin) {
	p := o.from()
	switch {
	case o.inc == r.replica.Inc(), r.selfServed(o.inc):
		r.prune(l, o)
	case p == l:
	case p == nil:
		if o.mark(l)&refused == 0 {
			o.setParent(l, r.nowNs)
		}
	case firstHand(l, o) && o.mark(l)&refused == 0:
		o.setParent(l, r.nowNs)
		r.prune(p, o)
	default:
		r.prune(l, o)
	}
}

// prune asks the peer of l to push no more ops of o.
func (r *Replicator) prune(l *link, o *origin) {
	if o.mark(l)&refused != 0 && r.nowNs-o.toldAt(l) < repruneAfter {
		return
	}
	if len(l.prune) >= maxPrunes {
		r.stats.DropPrune++ // the next duplicate brings another
		return
	}
	o.tell(l, r.nowNs)
	l.prune = append(l.prune, o.inc)
}

// prunedBy takes a PRUNE. What waits of those origins is announced instead, when
// the next frame is made.
func (r *Replicator) prunedBy(l *link, incs []crdt.Inc) {
	r.stats.PrunesReceived += int64(len(incs))
	for _, inc := range incs {
		if o := r.tree.known(inc); o != nil {
			o.set(l, grafted|tried, pruned)
			l.unpush = l.role != RoleQuiet
		}
	}
}

// unqueue announces what waits on l of origins that the peer pruned.
func (r *Replicator) unqueue(l *link) {
	l.unpush = false
	off := func(inc crdt.Inc) bool {
		o := r.tree.origins[inc]
		return o != nil && o.mark(l)&pruned != 0
	}
	of := func(op *crdt.Op) bool {
		return off(op.Dot.Inc) && !slices.ContainsFunc(op.Covers, func(sp crdt.Span) bool { return !off(sp.Inc) })
	}
	for _, q := range []*queue{&l.queue, &l.large} {
		for _, op := range q.extract(of) {
			r.stats.OpsUnqueued++
			r.announceOp(l, op, false)
		}
	}
	r.weigh(l)
}

// graft asks the peer of l for dots, and so to push what else comes from there.
func (r *Replicator) graft(l *link, dots crdt.Dots) {
	l.graft = l.graft.Union(dots)
	var last crdt.Inc
	for _, sp := range dots {
		if sp.Inc != last {
			last = sp.Inc
			if o := r.tree.origins[sp.Inc]; o != nil {
				o.set(l, refused, 0)
			}
		}
	}
}

// graftedBy takes note that the peer of l wants the ops of these origins.
func (r *Replicator) graftedBy(l *link, dots crdt.Dots) {
	var last crdt.Inc
	for _, sp := range dots {
		if sp.Inc != last {
			last = sp.Inc
			if o := r.tree.known(sp.Inc); o != nil {
				o.set(l, pruned, grafted)
			}
			if r.acks.of(sp.Inc) != nil { // what was asked went another way
				r.askOn(l, sp.Inc)
			}
		}
	}
}

// orphans is how dots split: urgent are those whose origin has no parent here,
// so that nobody will push them. of is the peer that announced them; large, that
// it will not push them either.
func (r *Replicator) orphans(of *link, dots crdt.Dots, large bool) (urgent, rest crdt.Dots) {
	return split(dots, func(inc crdt.Inc) bool {
		var parent *link
		if o := r.tree.origins[inc]; o != nil {
			parent = o.from()
		}
		return parent == nil || large && parent == of
	})
}

// orphan forgets l as a parent: what others announced need not wait any more.
func (r *Replicator) orphan(l *link) {
	l.epoch++
	r.hurryWants()
}
