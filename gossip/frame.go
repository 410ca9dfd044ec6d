package gossip

import (
	"fmt"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

func malformed(what string) error { return fmt.Errorf("%w: %s", crdt.ErrCodec, what) }

// ready reports whether NextFrame has something for l.
func (r *Replicator) ready(l *link) bool {
	return !l.broken && (l.control() || l.lagging() || !l.choked && (l.ops() || r.sessionReady(l)))
}

// lane is what takes turns on a link.
type lane uint8

const (
	laneNone lane = iota
	laneSmall
	laneLarge
	laneSession
)

// lane is what the next frame begins with. Small ops have every other frame to
// themselves, so that one never waits for more than one op or one frame of
// something else; what else waits takes turns with the rest.
func (l *link) lane(session bool) lane {
	small, large := l.small(), l.large.refs > 0
	switch {
	case small && (l.last != laneSmall || !large && !session):
		return laneSmall
	case large && (l.lastOther != laneLarge || !session):
		return laneLarge
	case session:
		return laneSession
	}
	return laneNone
}

// NextFrame appends the next frame payload for peer to buf: control messages,
// ops and session messages, up to about limit bytes, or one op or session
// message if that is larger. False: there is nothing to send, or no such link,
// and buf is returned as it was.
func (r *Replicator) NextFrame(now time.Time, peer PeerID, buf []byte, limit int) (frame []byte, ok bool) {
	r.begin(now)
	l := r.links[peer]
	if l == nil || l.broken {
		return buf, false
	}
	l.frame = limit
	if l.lagging() { // the link takes frames again
		r.require(l, needBehind, 0)
		r.startSessions()
	}
	if l.unpush && l.queued() {
		r.unqueue(l)
	}
	r.enc.Reset(buf)
	full := len(buf) + limit
	r.appendControl(l)
	if !l.choked {
		r.appendLanes(l, len(buf), full)
	}
	frame = r.enc.Bytes()
	r.enc.Reset(nil) // the frame is the caller's
	r.weigh(l)
	r.spend()
	if len(frame) == len(buf) {
		l.awake = false
		return buf, false
	}
	r.stats.FramesSent++
	r.stats.BytesSent += int64(len(frame) - len(buf))
	return frame, true
}

func (r *Replicator) appendControl(l *link) {
	if l.helloDue {
		l.helloDue = false
		appendHello(r.enc, l.mine, l.theirs, r.replica.Inc())
	}
	if l.chokeDue {
		l.chokeDue = false
		if r.choked {
			r.stats.ChokesSent++
		}
		appendChoke(r.enc, r.choked)
	}
	if l.behindDue {
		l.behindDue = false
		r.stats.BehindSent++
		appendBehind(r.enc)
	}
	if len(l.prune) > 0 { // before the grafts, which may take one back
		r.stats.PrunesSent += int64(len(l.prune))
		appendPrune(r.enc, l.prune)
		l.prune = l.prune[:0]
	}
	if l.abortDue {
		l.abortDue = false
		appendAbort(r.enc, l.token(), l.abortID)
	}
	if l.busyDue {
		l.busyDue = false
		r.stats.BusySent++
		appendBusy(r.enc, l.busyID, l.busyMs)
	}
	if l.summaryDue {
		r.sendSummary(l)
	}
	if l.haveDue {
		dots := l.takeHave()
		r.stats.IHavesSent += int64(size(dots))
		appendIHave(r.enc, dots, false)
	}
	if len(l.haveLarge) > 0 {
		dots := dotsOf(l.haveLarge)
		l.haveLarge = l.haveLarge[:0]
		r.stats.IHavesSent += int64(size(dots))
		appendIHave(r.enc, dots, true)
	}
	if len(l.graft) > 0 {
		r.stats.GraftsSent++
		appendDots(r.enc, kindGraft, l.graft)
		l.graft = nil
	}
	for _, b := range l.beacons {
		r.stats.BeaconsSent++
		appendBeacon(r.enc, b)
	}
	l.beacons = l.beacons[:0]
	r.appendAcks(l)
}

// appendLanes fills the frame, which began at from and is full at full.
func (r *Replicator) appendLanes(l *link, from, full int) {
	if len(l.wanted) > 0 && len(l.replies) == 0 {
		r.serve(l)
	}
	first := l.lane(r.sessionReady(l))
	switch l.last = first; first {
	case laneLarge:
		l.lastOther = first
		r.appendLarge(l, from, full)
	case laneSession:
		l.lastOther = first
		r.appendSessions(l, from, full)
	}
	r.appendSmall(l, from, full)
	if first != laneLarge && !l.small() {
		r.appendLarge(l, from, full)
	}
	if !l.ops() {
		r.appendSessions(l, from, full)
	}
}

// fits reports whether op may go into the frame.
func (r *Replicator) fits(op *crdt.Op, from, full int) bool {
	return r.enc.Len() == from || r.enc.Len()+opBytes(op) <= full
}

// appendSmall appends small ops while they fit. What the peer asked for and what
// waits on the queue take turns.
func (r *Replicator) appendSmall(l *link, from, full int) {
	for moved := true; moved; {
		moved = false
		if len(l.replies) > 0 && r.fits(l.replies[0], from, full) {
			appendOp(r.enc, l.replies[0])
			r.stats.OpsSent++
			l.replies[0] = nil
			if l.replies = l.replies[1:]; len(l.replies) == 0 {
				l.replies = nil
			}
			moved = true
		}
		if op := l.queue.peek(); op != nil && r.fits(op, from, full) {
			appendOp(r.enc, op)
			r.stats.OpsSent++
			l.queue.pop()
			moved = true
		}
	}
}

// appendLarge appends one large op, if it fits.
func (r *Replicator) appendLarge(l *link, from, full int) {
	if op := l.large.peek(); op != nil && r.fits(op, from, full) {
		appendOp(r.enc, op)
		r.stats.OpsSent++
		r.stats.LargeSent++
		l.large.pop()
	}
}
