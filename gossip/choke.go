package gossip

import (
	"cmp"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// budgetFloor is the size up to which no queue is dropped for the budget of the
// node: a keyspace with little to send does not pay for one with much.
const budgetFloor = 1 << 20

// SetChoked asks the peers, while on, to send no ops and sessions: their queues
// gather and coalesce, and one that overflows falls behind and is repaired. For
// an owner whose disk does not keep up. What is under way still arrives.
func (r *Replicator) SetChoked(now time.Time, on bool) {
	if r.choked == on {
		return
	}
	r.begin(now)
	r.choked = on
	for i := range r.wants { // nobody could answer meanwhile
		w := &r.wants[i]
		w.due = max(w.due, r.nowNs+r.patience(w.link)*largePatience)
	}
	slices.SortStableFunc(r.wants, func(a, b want) int { return cmp.Compare(a.due, b.due) })
	for _, l := range r.order {
		l.chokeDue = true
		r.wake(l)
	}
}

// Choked reports what SetChoked said last.
func (r *Replicator) Choked() bool { return r.choked }

// chokedBy takes a CHOKE.
func (r *Replicator) chokedBy(l *link, on bool) {
	if on && !l.choked {
		r.stats.ChokesReceived++
	}
	l.choked = on
}

// behindBy takes a BEHIND: ops that the peer would have pushed are lost. Others
// have announced them, and are asked at once; the session brings the rest.
func (r *Replicator) behindBy(l *link) {
	r.stats.BehindReceived++
	r.orphan(l)
	if l.begin {
		r.require(l, needBehind, 0)
	}
}

// enqueue puts op, of about so many bytes, on the queue of l, or drops the queue
// at its bound.
func (r *Replicator) enqueue(l *link, op *crdt.Op, bytes int) {
	q := &l.queue
	if bytes > r.cfg.Limits.LargeBytes {
		q = &l.large
	}
	q.push(op)
	r.weigh(l)
	lim := &r.cfg.Limits
	if l.refs() > lim.QueueRefs || l.weight > lim.QueueBytes || l.queue.spans+l.large.spans > maxQueueCovers {
		r.overflow(l, &r.stats.DropQueue)
	}
	r.wake(l)
}

// overflow drops what waits on l, and counts it. NextFrame says so to the peer and asks for the
// session, once the link takes frames again.
func (r *Replicator) overflow(l *link, dropped *int64) {
	r.hurry(l)
	*dropped += int64(l.refs())
	r.stats.Overflows++
	l.queue.reset()
	l.large.reset()
	r.weigh(l)
	l.behind, l.behindDue = true, true
}

// weigh takes note of how much waits on l.
func (r *Replicator) weigh(l *link) {
	n := l.queue.bytes + l.large.bytes
	r.unspent += n - l.weight
	l.weight = n
}

// spend tells the budget what changed. Over it, the fullest queue is dropped.
func (r *Replicator) spend() {
	if r.cfg.Budget == nil || !r.cfg.Budget.Add(r.takeUnspent()) {
		return
	}
	var fullest *link
	for _, l := range r.order {
		if l.weight > budgetFloor && (fullest == nil || l.weight > fullest.weight) {
			fullest = l
		}
	}
	if fullest == nil {
		return
	}
	r.overflow(fullest, &r.stats.DropBudget)
	r.wake(fullest)
	r.cfg.Budget.Add(r.takeUnspent())
}

func (r *Replicator) takeUnspent() (n int) {
	n, r.unspent = r.unspent, 0
	return n
}
