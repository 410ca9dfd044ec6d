package gossip

import (
	"fmt"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

func malformed(what string) error { return fmt.Errorf("%w: %s", crdt.ErrCodec, what) }

// ready reports whether NextFrame has something for l.
func (r *Replicator) ready(l *link) bool {
	return !l.broken && (l.control() || l.ops() || l.lagging() || r.sessionReady(l))
}

// NextFrame appends the next frame payload for peer to buf: control messages,
// then ops, then session messages, up to about limit bytes, or one op or
// session message if that is larger. While both wait, frames that begin with
// ops and with the session alternate. False: there is nothing to send, or no
// such link, and buf is returned as it was.
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
	r.pace()
	r.enc.Reset(buf)
	full := len(buf) + limit
	r.appendControl(l)
	waiting := r.sessionReady(l)
	if waiting && l.turn {
		r.appendSessions(l, len(buf), full)
	}
	r.appendOps(l, len(buf), full)
	if l.turn = waiting && !l.turn; !l.ops() {
		r.appendSessions(l, len(buf), full)
		l.turn = false
	}
	frame = r.enc.Bytes()
	r.enc.Reset(nil) // the frame is the caller's
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
		appendHello(r.enc, l.mine, l.theirs)
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
		appendDots(r.enc, kindIHave, dots)
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
}

// appendOps appends ops while they fit into the frame, which began at from and
// is full at full: what the peer asked for, then what waits on the queue.
func (r *Replicator) appendOps(l *link, from, full int) {
	if len(l.wanted) > 0 && len(l.replies) == 0 {
		r.serve(l)
	}
	fits := func(op *crdt.Op) bool { return r.enc.Len() == from || r.enc.Len()+opBytes(op) <= full }
	for len(l.replies) > 0 && fits(l.replies[0]) {
		appendOp(r.enc, l.replies[0])
		r.stats.OpsSent++
		l.replies[0] = nil
		if l.replies = l.replies[1:]; len(l.replies) == 0 {
			l.replies = nil
		}
	}
	for op := l.queue.peek(); op != nil && fits(op); op = l.queue.peek() {
		appendOp(r.enc, op)
		r.stats.OpsSent++
		l.queue.pop()
	}
}
