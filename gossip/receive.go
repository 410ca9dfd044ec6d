package gossip

import (
	"github.com/meshkv/meshkv/crdt"
)

// message takes one message off r.dec.
func (r *Replicator) message(l *link) error {
	kind, fields, err := takeHead(r.dec)
	if err != nil {
		return err
	}
	want := known(kind)
	if want < 0 {
		r.stats.DropUnknownKind++
		return r.dec.Skip(fields)
	}
	if fields < want {
		return malformed("message with too few elements")
	}
	more := fields - want
	if err := r.take(l, kind, &more); err != nil {
		return err
	}
	r.settle()
	return r.dec.Skip(more)
}

// take decodes and handles one message of a known kind. more is the number of
// elements beyond those that every version has, and then of those beyond what
// this one knows.
func (r *Replicator) take(l *link, kind uint64, more *int) error {
	d := r.dec
	switch kind {
	case kindHello:
		var theirs, mine, inc uint64
		err := takeUints(d, &theirs, &mine)
		if err == nil && *more > 0 {
			*more--
			err = takeUints(d, &inc)
		}
		if err == nil {
			r.hello(l, theirs, mine)
			l.peerInc = crdt.Inc(inc)
		}
		return err
	case kindOp:
		op, err := d.Op()
		if err == nil {
			r.op(l, op)
		}
		return err
	case kindBatch:
		op, err := d.Batch()
		if err == nil {
			r.op(l, op)
		}
		return err
	case kindIHave:
		dots, err := d.Dots(maxDotSpans)
		large := false
		if err == nil && *more > 0 {
			*more--
			large, err = d.Bool()
		}
		if err == nil {
			r.announced(l, dots, large)
		}
		return err
	case kindGraft:
		dots, err := d.Dots(maxDotSpans)
		if err == nil {
			r.grafted(l, dots)
		}
		return err
	case kindSummary:
		s, err := takeSummary(d, more)
		if err == nil {
			r.summary(l, s)
		}
		return err
	case kindSession:
		env, payload, err := takeEnvelope(d)
		if err == nil {
			err = r.sessionMessage(l, env, payload)
		}
		return err
	case kindBusy:
		var id, ms uint64
		err := takeUints(d, &id, &ms)
		if err == nil {
			r.busy(l, id, min(ms, maxBusyMs))
		}
		return err
	case kindPrune:
		incs, err := takeIncs(d)
		if err == nil {
			r.prunedBy(l, incs)
		}
		return err
	case kindChoke:
		on, err := d.Bool()
		if err == nil {
			r.chokedBy(l, on)
		}
		return err
	case kindBehind:
		r.behindBy(l)
		return nil
	case kindBeacon:
		b, err := takeBeacon(d, more)
		if err == nil {
			r.beacon(l, b)
		}
		return err
	case kindAsk:
		a, err := takeAsk(d)
		if err == nil {
			r.askedBy(l, a)
		}
		return err
	case kindAcks:
		origin, rows, err := takeRows(d)
		if err == nil {
			r.ackedBy(origin, rows)
		}
		return err
	default: // kindAbort
		var token, id uint64
		err := takeUints(d, &token, &id)
		if err == nil {
			r.aborted(l, token, id)
		}
		return err
	}
}

// hello takes the token of the peer, and what the peer takes for ours. If a
// second one on a link differs, one of the two came late from an earlier link:
// the newest is kept, and the session that was begun under the other is not.
// Whoever meets messages under a wrong token says hello, and who is mistaken for
// an earlier one answers it.
func (r *Replicator) hello(l *link, theirs, mine uint64) {
	if mine != l.mine { // it does not know ours, or one of an earlier link
		l.helloDue = true
	}
	if l.met && l.theirs == theirs {
		return
	}
	if l.met { // another replica answers than before: it knows nothing of this link
		r.abort(l)
		r.tree.unmark(l)
		r.hurryWants()
		l.choked, l.heard, l.unequal = false, false, 0
		l.chokeDue, l.summaryDue = r.choked, true
		r.ackLinkNew(l)
	}
	l.met, l.theirs = true, theirs
}

// op takes one received op.
func (r *Replicator) op(l *link, op *crdt.Op) {
	r.stats.OpsReceived++
	if r.refuses(op) {
		return
	}
	r.checkSpan(crdt.Span{Inc: op.Dot.Inc, Lo: op.Dot.Seq, Hi: op.Dot.Seq})
	r.checkDots(op.Covers)
	r.checkDots(op.Removes)
	r.noteHLC(op.HLC)
	before := r.data.Root()
	if !r.apply(op) {
		r.stats.OpsDuplicate++
		r.duplicated(l, r.tree.touch(op.Dot.Inc))
		return
	}
	r.settle()
	r.noteOps(before, op)
	r.delivered(l, r.tree.touch(op.Dot.Inc))
	r.noteLag(op.Dot.Inc, op.HLC)
	r.spread(l, op)
}

// apply is the rule for one op.
func (r *Replicator) apply(op *crdt.Op) (fresh bool) {
	if r.mirror.origin != 0 {
		return r.applyInOrder(op)
	}
	return r.replica.Apply(op)
}

// checkDots looks for dots of our own Inc that were not issued here.
func (r *Replicator) checkDots(d crdt.Dots) {
	for _, sp := range d {
		r.checkSpan(sp)
	}
}

// checkSpan: another process writes under our Inc, or a copy of our state did.
// What it wrote is kept, and we take a new Inc before we write again.
func (r *Replicator) checkSpan(sp crdt.Span) {
	if sp.Inc == r.replica.Inc() && sp.Hi > r.replica.Seq() && !r.lost {
		r.lost = true
		r.stats.ForeignDots++
	}
}

// checkOwn looks at what the clock and the pending deaths say of our own Inc.
func (r *Replicator) checkOwn() {
	inc := r.replica.Inc()
	en := r.replica.Clock().Entry(inc)
	r.checkSpan(crdt.Span{Inc: inc, Lo: 1, Hi: en.Max()})
	if en.Closed {
		r.lost = true
	}
	if r.replica.PendingLen() > 0 {
		r.checkDots(r.replica.Pending())
	}
}
