package keeper

import (
	"cmp"
	"time"

	"github.com/meshkv/meshkv/consensus/machine"
)

// proposal is what was asked for a duty and has no outcome yet. There is one at a time,
// so that what is asked for later is later in the log.
type proposal uint8

const (
	none proposal = iota
	expire
	checkpoint
	clearing // a checkpoint with nothing left
	endDelay
)

// A duty is a session, or the delay of a lock, and when something is to be done about it.
type duty struct {
	due      time.Time
	position int // in the queue; -1: not in it, as long as asked is not none
	asked    proposal
	retry    time.Time // not before that
	failures int       // in a row
	deadline time.Time // when the session has expired, or the delay is over

	lease machine.LeaseID
	ttl   time.Duration
	// marked: the log may have a checkpoint of it. saved: it has.
	marked, saved bool
	// heard is when it was heard for the first time although it was marked; zero: it was not.
	heard time.Time

	delay machine.EndDelay // zero for a session
}

// schedule sets when it is due.
func (d *duty) schedule() {
	switch d.due = d.deadline; {
	case d.delay.Name != "":
	case !d.heard.IsZero():
		d.due = earlier(d.heard, d.deadline)
	case !d.saved:
		d.due = d.deadline.Add(-d.ttl / 2)
	}
	if d.retry.After(d.due) {
		d.due = d.retry
	}
}

// what is to be done at now, when it is due.
func (d *duty) what(now time.Time) proposal {
	switch {
	case d.delay.Name != "":
		return endDelay
	case !now.Before(d.deadline):
		return expire
	case !d.heard.IsZero():
		return clearing
	}
	return checkpoint
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// A queue is a heap of duties by when they are due, the same in every run.
type queue []*duty

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.lease, b.lease), cmp.Compare(a.delay.Name, b.delay.Name), cmp.Compare(a.delay.Token, b.delay.Token)) < 0
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].position, q[j].position = i, j
}

func (q *queue) Push(x any) {
	d := x.(*duty)
	d.position = len(*q)
	*q = append(*q, d)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	d.position = -1
	return d
}
