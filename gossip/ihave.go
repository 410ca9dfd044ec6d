package gossip

import (
	"cmp"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

const (
	// largePatience is how many times as long as others a large op may take to
	// arrive after it was announced.
	largePatience = 10
	// busyPatience is the same for ops whose parent keeps bringing others of the
	// same origin: they wait behind those, and asking for them elsewhere would
	// only add to the load.
	busyPatience = 10
	// steadyPatience multiplies both the wait for a parent and the silence in
	// which it is still taken to go on, where it brings steadyOps a second of the
	// origin: then all lag alike, and asking elsewhere would bring everything
	// twice. A parent leaves nothing out without saying BEHIND.
	steadyPatience = 10
	steadyOps      = 50
	// originAlive is how long ago the last op may have come over the link from their
	// origin itself for others still to be expected there, and originPatience for how
	// long. The stream keeps their order and leaves nothing out without saying BEHIND:
	// what is late waits on it, and where all are late, asking elsewhere would
	// bring everything twice. If the link ends, others are asked at once.
	originAlive    = int64(2 * time.Second)
	originPatience = int64(5 * time.Second)
	// directShare is the number of links of a full mesh from which on each of them
	// is told less often what the others may have missed.
	directShare = 3
)

// want is announced dots that have not arrived.
type want struct {
	link  *link // whose peer announced them
	dots  crdt.Dots
	due   int64 // when they are asked for, or, if asked, given up
	asked bool
	since int64 // when they were announced
}

// announceOp announces what op stands for: a large one at once, since it is
// pushed to few and the others wait for it.
func (r *Replicator) announceOp(l *link, op *crdt.Op, large bool) {
	own := crdt.Span{Inc: op.Dot.Inc, Lo: op.Dot.Seq, Hi: op.Dot.Seq}
	if large && len(l.haveLarge)+len(op.Covers) < r.cfg.Limits.AnnounceSpans {
		l.haveLarge = append(append(l.haveLarge, own), op.Covers...)
		return
	}
	r.announce(l, own)
	for _, sp := range op.Covers {
		r.announce(l, sp)
	}
	if len(l.have) >= r.cfg.Limits.IHaveSpans || r.nowNs-l.haveAt >= r.announceEvery(l) {
		l.haveDue = true
	}
}

// announceEvery is how long an announcement waits for others. In a full mesh the
// origin itself has pushed to everybody, and announcing is for those whom it cannot
// reach: all announcements of a node together come as often as those on
// directShare links would, or with 16 neighbours each op would cause 240 of them.
func (r *Replicator) announceEvery(l *link) int64 {
	every := int64(r.cfg.Limits.IHaveEvery)
	if l.role == RoleDirect && len(r.order) > directShare {
		every = every * int64(len(r.order)) / directShare
	}
	return every
}

func (r *Replicator) announce(l *link, sp crdt.Span) {
	if l.announce(r.nowNs, sp, r.cfg.Limits.AnnounceSpans) {
		r.stats.DropIHave++
		r.hurry(l)
	}
}

// announced takes an IHAVE: what is not known here is asked for if it does not
// arrive by itself, and at once if nobody is known who would push it. That it
// names a dot of our own Inc which was not issued here proves nothing yet: the
// op will, when it comes.
func (r *Replicator) announced(l *link, dots crdt.Dots, large bool) {
	r.stats.IHavesReceived += int64(min(size(dots), 1<<32))
	missing := r.replica.Clock().Missing(dots)
	if len(missing) == 0 {
		return
	}
	lim := &r.cfg.Limits
	if len(r.wants) >= lim.WantEntries || len(missing) > lim.AnnounceSpans || r.wantSpans()+len(missing) > lim.WantSpans {
		r.dropWant(l, missing)
		return
	}
	patience := r.patience(l)
	if large { // takes longer on its way, too
		patience *= largePatience
	}
	urgent, rest := r.orphans(l, missing, large)
	if len(urgent) > 0 {
		r.want(want{link: l, dots: urgent, due: r.nowNs, since: r.nowNs})
	}
	if len(rest) > 0 {
		r.want(want{link: l, dots: rest, due: r.nowNs + patience, since: r.nowNs})
	}
}

// hurryWants makes due what nobody was asked for.
func (r *Replicator) hurryWants() {
	changed := false
	for i := range r.wants {
		if w := &r.wants[i]; !w.asked && w.due > r.nowNs {
			w.due, changed = r.nowNs, true
		}
	}
	if !changed {
		return
	}
	slices.SortStableFunc(r.wants, func(a, b want) int { return cmp.Compare(a.due, b.due) })
}

// dropWant leaves missing to a session.
func (r *Replicator) dropWant(l *link, missing crdt.Dots) {
	r.stats.DropWant += int64(len(missing))
	r.hurry(l)
	r.require(l, needGraft, 0)
}

// wantSpans is the number of spans in all wants.
func (r *Replicator) wantSpans() (n int) {
	for _, w := range r.wants {
		n += len(w.dots)
	}
	return n
}

// patience is how long an announced dot may take to arrive by itself.
func (r *Replicator) patience(l *link) int64 {
	return max(int64(r.cfg.Limits.GraftAfter), int64(l.rtt)*3/2)
}

// want inserts w in the order of due, after its equals.
func (r *Replicator) want(w want) {
	i := len(r.wants)
	for i > 0 && r.wants[i-1].due > w.due {
		i--
	}
	r.wants = slices.Insert(r.wants, i, w)
}

// graftDue asks for what was announced and did not arrive. Dots that a second
// announcer has are asked of it only after the first failed to deliver; dots
// that nobody delivers are left to a session.
func (r *Replicator) graftDue() {
	if r.choked || len(r.wants) == 0 || r.wants[0].due > r.nowNs {
		return
	}
	n := 0
	for n < len(r.wants) && r.wants[n].due <= r.nowNs {
		n++
	}
	due := slices.Clone(r.wants[:n])
	r.wants = slices.Delete(r.wants, 0, n)
	for _, w := range due {
		missing := r.replica.Clock().Missing(w.dots)
		if len(missing) == 0 {
			continue
		}
		if w.asked {
			r.require(w.link, needGraft, 0)
			continue
		}
		patience := r.patience(w.link)
		var coming crdt.Dots
		if coming, missing = r.coming(missing, w.since, patience); len(coming) > 0 {
			r.want(want{link: w.link, dots: coming, due: r.nowNs + patience, since: w.since})
		}
		waiting := r.minusAsked(missing)
		if len(waiting)+len(w.link.graft) > r.cfg.Limits.AnnounceSpans {
			r.dropWant(w.link, waiting) // more than the peer would serve
			continue
		}
		if len(waiting) > 0 {
			r.graft(w.link, waiting)
			r.want(want{link: w.link, dots: waiting, due: r.nowNs + 10*patience, asked: true})
			missing = minus(missing, waiting)
		}
		if len(missing) > 0 {
			r.want(want{link: w.link, dots: missing, due: r.nowNs + 10*patience + 1, since: w.since})
		}
	}
}

// coming is how dots, announced at since, split: those of origins whose parent
// brought an op within the patience, and the rest.
func (r *Replicator) coming(dots crdt.Dots, since, patience int64) (coming, rest crdt.Dots) {
	return split(dots, func(inc crdt.Inc) bool {
		if r.selfServed(inc) {
			return r.nowNs-since < originPatience
		}
		o := r.tree.origins[inc]
		if o == nil || o.from() == nil {
			return false
		}
		alive, limit := patience, busyPatience*patience
		switch {
		case firstHand(o.from(), o):
			alive, limit = max(alive, originAlive), max(limit, originPatience)
		case o.steady(r.nowNs):
			alive, limit = steadyPatience*alive, steadyPatience*limit
		}
		return r.nowNs-o.heardAt < alive && r.nowNs-since < limit
	})
}

// minusAsked is the dots that no peer has been asked for.
func (r *Replicator) minusAsked(dots crdt.Dots) crdt.Dots {
	for _, w := range r.wants {
		if w.asked && len(dots) > 0 {
			dots = minus(dots, w.dots)
		}
	}
	return dots
}

// grafted takes a GRAFT. Requests gather until the next frame, so that many cost
// one walk of the ring. From now on the ops of those origins are pushed.
func (r *Replicator) grafted(l *link, dots crdt.Dots) {
	r.stats.GraftsReceived++
	r.graftedBy(l, dots)
	if len(l.wanted)+len(dots) > r.cfg.Limits.AnnounceSpans {
		r.stats.DropGraft += int64(len(dots))
		r.require(l, needGraft, 0)
		return
	}
	l.wanted = l.wanted.Union(dots)
}

// serve turns what the peer asked for into replies. What the ring does not hold
// is settled by a session.
func (r *Replicator) serve(l *link) {
	replies, missing := r.ring.find(l.wanted, l.replies)
	r.stats.OpsGrafted += int64(len(replies) - len(l.replies))
	l.wanted = nil
	l.replies = slices.DeleteFunc(replies, func(op *crdt.Op) bool {
		bytes := opBytes(op)
		if bytes <= r.cfg.Limits.LargeBytes {
			return false
		}
		if !l.large.holds(op) {
			r.enqueue(l, op, bytes)
		}
		return true
	})
	if len(missing) > 0 {
		r.stats.GraftsUnmatched++
		r.require(l, needGraft, 0)
	}
}
