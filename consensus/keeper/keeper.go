package keeper

import (
	"container/heap"
	"time"

	"github.com/meshkv/meshkv/consensus/machine"
)

const (
	// firstRetry doubles to maxRetry while proposals for the same thing fail.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 5 * time.Second
)

// A Keeper keeps the time of sessions and delays. It performs no I/O, starts no goroutine
// and reads no clock. now must not run backwards from call to call, nor the clock be set:
// it is a monotonic time. There are as many sessions and delays as the quota of the
// keyspace admits. Not safe for concurrent use.
type Keeper struct {
	sessions map[machine.LeaseID]*duty
	delays   map[machine.EndDelay]*duty
	queue    queue // of those for which nothing is asked
}

// Effects are what is to be proposed: an Expire, a Checkpoint and an EndDelay each. They
// may be proposed side by side. What becomes of each is told by Applied or Failed, once
// nothing that was proposed can take effect any more later than that; until then
// nothing else is asked for what is in it.
type Effects struct {
	Expire     []machine.LeaseID  // at most machine.MaxExpired
	Checkpoint []machine.Left     // likewise
	EndDelay   []machine.EndDelay // likewise
}

// An Ack says what may be answered to a keep-alive, and when. In any case it must be
// confirmed before that this node still led after KeepAlive was called: a leader that was
// deposed knows neither who lives nor who is gone.
type Ack uint8

const (
	// Gone: the session has ended, or is about to.
	Gone Ack = iota
	// Alive: it is acknowledged.
	Alive
	// Marked: it is acknowledged once a Checkpoint that sets its Left to 0 was Applied. One
	// is asked for, or has been. The session may end before that.
	Marked
)

// New is the keeper of a leader that takes over at now, with the leases of the machine.
// The delays, see machine.View.Delays, it is told by Delay.
func New(now time.Time, leases []machine.Lease) *Keeper {
	k := &Keeper{sessions: make(map[machine.LeaseID]*duty, len(leases)), delays: make(map[machine.EndDelay]*duty)}
	for _, l := range leases {
		d := &duty{lease: l.ID, ttl: milliseconds(l.TTL), marked: l.Left > 0, saved: l.Left > 0}
		d.deadline = now.Add(d.ttl)
		if l.Left > 0 {
			d.deadline = now.Add(milliseconds(l.Left))
		}
		k.sessions[l.ID] = d
		k.enqueue(d)
	}
	return k
}

func milliseconds(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }

// Granted takes note of a new lease, of so many milliseconds.
func (k *Keeper) Granted(now time.Time, id machine.LeaseID, ttl uint64) {
	k.Ended(id)
	d := &duty{lease: id, ttl: milliseconds(ttl), deadline: now.Add(milliseconds(ttl))}
	k.sessions[id] = d
	k.enqueue(d)
}

// Ended takes note that a lease has ended, for whatever reason.
func (k *Keeper) Ended(id machine.LeaseID) {
	if d := k.sessions[id]; d != nil {
		delete(k.sessions, id)
		k.dequeue(d)
	}
}

// Delay takes note that a lock is kept by a delay, of so many milliseconds from now. It
// is over when an EndDelay is Applied.
func (k *Keeper) Delay(now time.Time, lock string, token machine.Token, ms uint64) {
	id := machine.EndDelay{Name: lock, Token: token}
	if k.delays[id] != nil {
		return
	}
	d := &duty{delay: id, deadline: now.Add(milliseconds(ms))}
	k.delays[id] = d
	k.enqueue(d)
}

// KeepAlive takes note that a session was heard. It returns its TTL, which counts for
// the holder from when it sent this, and what may be answered.
func (k *Keeper) KeepAlive(now time.Time, id machine.LeaseID) (ttl time.Duration, ack Ack) {
	d := k.sessions[id]
	if d == nil || !now.Before(d.deadline) {
		return 0, Gone
	}
	d.deadline, ack = now.Add(d.ttl), Alive
	if d.marked {
		ack = Marked
		// A clearing that is asked for serves this one, too.
		if d.asked != clearing && d.heard.IsZero() {
			d.heard = now
		}
	}
	if d.asked == none {
		d.schedule()
		heap.Fix(&k.queue, d.position)
	}
	return d.ttl, ack
}

// NextDue is when Tick has something to do; false: never, as it stands.
func (k *Keeper) NextDue() (time.Time, bool) {
	if len(k.queue) == 0 {
		return time.Time{}, false
	}
	return k.queue[0].due, true
}

// Tick is what is to be done at now. There may be more than what fits, see NextDue.
func (k *Keeper) Tick(now time.Time) (e Effects) {
	for len(k.queue) > 0 && !k.queue[0].due.After(now) {
		d := k.queue[0]
		switch what := d.what(now); what {
		case endDelay:
			if len(e.EndDelay) == machine.MaxExpired {
				return e
			}
			e.EndDelay = append(e.EndDelay, d.delay)
			d.asked = what
		case expire:
			if len(e.Expire) == machine.MaxExpired {
				return e
			}
			e.Expire = append(e.Expire, d.lease)
			d.asked = what
		default:
			if len(e.Checkpoint) == machine.MaxExpired {
				return e
			}
			e.Checkpoint = append(e.Checkpoint, d.mark(now, what))
			d.asked = what
		}
		k.dequeue(d)
	}
	return e
}

// mark is the checkpoint of a session, which is marked from now on. What is left is
// rounded up: it must not end early.
func (d *duty) mark(now time.Time, what proposal) machine.Left {
	left := machine.Left{ID: d.lease}
	if d.marked = true; what == checkpoint {
		left.Left = uint64((d.deadline.Sub(now) + time.Millisecond - 1) / time.Millisecond)
	}
	d.heard = time.Time{}
	return left
}

// Applied takes note that e, or one of the proposals in it, took effect.
func (k *Keeper) Applied(e Effects) {
	for _, id := range e.Expire {
		if d := k.sessions[id]; d != nil && d.asked == expire {
			delete(k.sessions, id)
		}
	}
	for _, left := range e.Checkpoint {
		if d := k.pending(left); d != nil {
			d.marked, d.saved = d.asked == checkpoint, d.asked == checkpoint
			d.settle(time.Time{}, 0)
			k.enqueue(d)
		}
	}
	for _, id := range e.EndDelay {
		if d := k.delays[id]; d != nil {
			delete(k.delays, id)
			k.dequeue(d)
		}
	}
}

// Failed takes note that e, or one of the proposals in it, was not applied: Tick gives it
// again, after a pause that grows.
func (k *Keeper) Failed(now time.Time, e Effects) {
	for _, id := range e.Expire {
		if d := k.sessions[id]; d != nil && d.asked == expire {
			k.again(now, d)
		}
	}
	for _, left := range e.Checkpoint {
		if d := k.pending(left); d != nil {
			if d.asked == clearing {
				d.heard = now
			}
			k.again(now, d)
		}
	}
	for _, id := range e.EndDelay {
		if d := k.delays[id]; d != nil && d.asked == endDelay {
			k.again(now, d)
		}
	}
}

// pending is the session for which this checkpoint was asked, or nil.
func (k *Keeper) pending(left machine.Left) *duty {
	d, want := k.sessions[left.ID], checkpoint
	if left.Left == 0 {
		want = clearing
	}
	if d == nil || d.asked != want {
		return nil
	}
	return d
}

func (k *Keeper) again(now time.Time, d *duty) {
	pause := min(firstRetry<<min(d.failures, 8), maxRetry)
	d.settle(now.Add(pause), d.failures+1)
	k.enqueue(d)
}

// settle ends what was asked.
func (d *duty) settle(retry time.Time, failures int) {
	d.asked, d.retry, d.failures = none, retry, failures
}

func (k *Keeper) enqueue(d *duty) {
	d.schedule()
	heap.Push(&k.queue, d)
}

func (k *Keeper) dequeue(d *duty) {
	if d.position >= 0 {
		heap.Remove(&k.queue, d.position)
	}
}
