package gossip

import (
	"errors"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
)

// need is why a link wants a session.
type need uint8

const (
	needNone    need = iota
	needSummary      // unequal summaries
	needStart        // unequal at the start of the link
	needGraft        // an announced op that nobody could deliver
	needBehind       // the queue overflowed
	needPeer         // the peer asked
	needAsked        // the owner asked
	needRetry        // the last one failed
	needFuse         // the last one was held back by the fuse
)

// Bounds of sessions.
const (
	maxPendingDots = 1 << 20 // that a peer may teach in one session
	// minSessionMessage is the least size that messages are cut to.
	minSessionMessage = 1 << 10
	minBackoff        = int64(500 * time.Millisecond)
	maxBackoff        = int64(30 * time.Second)
	minCalm           = int64(2 * time.Second)
	hurriedCalm       = int64(5 * time.Second)
	busyMs            = 200 // and up to four times as much, by chance
)

// errSession is a breach of the session protocol by the peer.
var errSession = errors.New("reconciliation session")

// session is one reconciliation with the peer of a link. It dies with the link.
type session struct {
	id             uint64
	core           *reconcile.Session
	outbound       bool
	empty          bool // this replica was empty at the start
	paced          bool
	behind         bool // of the link, at the start
	sent, received uint64
	activeAt       int64
	next           []byte // the message to be sent next, pulled from core
	judged         bool   // the conclusion was made or held back
	held           bool   // held back by the fuse

	differs []Difference // a sample of what it found
}

// add reports cells that became live here.
func (s *session) add(cells []*crdt.Cell) {
	for _, c := range cells {
		s.core.Added(c.Dot)
	}
}

// require notes that l wants a session, after the delay at the earliest. A need
// that is there already keeps its time, so that nothing shortens the wait after
// a failure but the owner's wish.
func (r *Replicator) require(l *link, why need, delay time.Duration) {
	if l.need == needNone || why == needAsked {
		l.need, l.needAt = why, r.nowNs+int64(delay)
	}
}

// startSessions begins the sessions that are wanted, as far as the bounds
// allow, and asks for those that the peer is to begin.
func (r *Replicator) startSessions() {
	var sponsor *link
	var wait, asked bool
	for _, l := range r.order {
		if !r.mayStart(l) {
			continue
		}
		if r.fillsFrom(l) {
			if !asked {
				sponsor, wait = r.sponsor()
				asked = true
			}
			if wait || l != sponsor {
				continue
			}
		}
		if !l.begin {
			l.ask, l.summaryDue = true, true
			l.needAt = r.nowNs + int64(r.cfg.Limits.SummaryEvery)
			if l == sponsor { // if it does not begin until then, others are asked first
				r.askedTill, l.needAt = l.needAt, l.needAt+2*int64(r.cfg.Limits.SummaryEvery)
			}
			r.wake(l)
			continue
		}
		if !r.place(true) {
			continue
		}
		if r.outdated(l) {
			r.cfg.Pace.End(true)
			l.ask, l.summaryDue, l.checking = true, true, true
			l.needAt = r.nowNs + int64(r.cfg.Limits.SummaryEvery)
			r.wake(l)
			continue
		}
		l.opened++
		r.attach(l, &session{
			id: l.opened, outbound: true, core: reconcile.Open(l.opened, r.cfg.Seed, r.snapshot()),
		})
		r.stats.SessionsOpened++
		r.wake(l)
	}
}

// mayStart reports whether l wants a session, and may have one now.
func (r *Replicator) mayStart(l *link) bool {
	return l.need != needNone && l.session == nil && l.met && !l.broken && !l.choked && !r.choked && r.nowNs >= l.needAt
}

// outdated reports whether one of the two replicas may have changed since the
// last summary of the peer, which is asked for another one before a session
// begins: of many peers that differ alike, the session with the first may have
// settled everything. An empty replica does not lose the time.
func (r *Replicator) outdated(l *link) bool {
	switch {
	case l.need == needAsked, l.need == needFuse, !l.heard, l.heardAt == r.nowNs, r.replica.Cells().Len() == 0:
		return false
	}
	return l.need == needRetry || l.heardRoot != r.root()
}

// attach makes s the session of l.
func (r *Replicator) attach(l *link, s *session) {
	s.empty = r.replica.Cells().Len() == 0
	s.paced = !s.empty && !l.peerEmpty
	s.behind, l.behind = l.behind, false
	s.activeAt = r.nowNs
	l.need, l.checking, l.session = needNone, false, s
}

// detach takes the session off l, which has one, and frees its place.
func (r *Replicator) detach(l *link) {
	r.cfg.Pace.End(l.session.outbound)
	l.session = nil
}

// place takes a place for one more session, if it may begin. While an empty
// replica is being filled there is no other, so that nothing is sent to it twice.
func (r *Replicator) place(outbound bool) bool {
	return !r.damaged && !r.filling() && r.cfg.Pace.Begin(outbound)
}

// sessionMessage takes one message of a session. Only a malformed payload is an
// error; a breach of the protocol ends the session.
func (r *Replicator) sessionMessage(l *link, env envelope, payload []byte) error {
	switch {
	case !l.met:
		r.stats.DropBeforeHello++
		return nil
	case env.link != l.token(): // of an earlier link, or the peer has our token of one
		r.stats.DropStaleSession++
		l.helloDue = true
		return nil
	}
	r.stats.SessionBytesReceived += int64(len(payload))
	s := l.session
	if s == nil || s.id != env.id {
		if env.number != 0 || l.begin {
			r.stats.DropStaleSession++
			return nil
		}
		if s = r.accept(l, env.id); s == nil {
			return nil
		}
	}
	switch {
	case env.number < s.received: // repeated
		r.stats.DropStaleSession++
		return nil
	case env.number > s.received: // one was lost
		r.abort(l)
		return nil
	}
	s.received++
	s.activeAt = r.nowNs
	if err := s.core.Step(payload); err != nil {
		if errors.Is(err, crdt.ErrCodec) {
			return err
		}
		r.abort(l)
		return nil
	}
	for _, c := range s.core.TakeProvided() {
		s.foundOffered(c)
		r.provide(c)
	}
	r.settle()
	r.advance(l)
	return nil
}

// advance concludes and finishes the session of l, if it is that far.
func (r *Replicator) advance(l *link) {
	s := l.session
	if s == nil {
		return
	}
	if err := r.conclude(l, s); err != nil {
		r.abort(l)
		return
	}
	r.finish(l)
}

// accept begins a session that the peer opened, or tells it that we are busy.
// The peer has at most one: an older one was given up.
func (r *Replicator) accept(l *link, id uint64) *session {
	if l.session != nil {
		r.closeSession(l)
	}
	if !r.place(false) {
		l.busyDue, l.busyID = true, id
		l.doubt.busyAt = r.nowNs
		l.busyMs = busyMs + r.cfg.Rand.Uint64N(3*busyMs)
		return nil
	}
	s := &session{id: id, core: reconcile.Accept(id, r.cfg.Seed, r.snapshot())}
	r.attach(l, s)
	r.stats.SessionsAccepted++
	return s
}

// provide takes a cell that was offered. It becomes readable here, and its dot
// enters the clock only at the session's end.
func (r *Replicator) provide(c *crdt.Cell) {
	if r.refusesCell(c) {
		return
	}
	r.checkSpan(crdt.Span{Inc: c.Dot.Inc, Lo: c.Dot.Seq, Hi: c.Dot.Seq})
	r.noteHLC(c.HLC)
	if r.replica.Provide(c) {
		r.stats.CellsProvided++
	}
}

// conclude takes over what the peer knew, once everything that it offered is
// here, unless the fuse holds it back.
func (r *Replicator) conclude(l *link, s *session) error {
	if s.judged {
		return nil
	}
	known, lacks, ok := s.core.Concluded()
	if !ok {
		return nil
	}
	s.judged = true
	if size(known.Pending) > maxPendingDots {
		return errSession
	}
	var drops []crdt.Dot
	var spans []crdt.Span
	var dead []crdt.Dot
	for d := range lacks {
		if !known.Has(d) {
			continue
		}
		dead = append(dead, d)
		if r.replica.Cells().ByDot(d) != nil {
			drops = append(drops, d)
			spans = append(spans, crdt.Span{Inc: d.Inc, Lo: d.Seq, Hi: d.Seq})
		}
	}
	r.foundDead(s, dead)
	if !r.allows(l.peer, known.Clock, dotsOf(spans)) {
		s.held = true
		for _, other := range r.order { // a second verdict
			if other != l {
				r.require(other, needFuse, 0)
			}
		}
		return nil
	}
	news := r.news(known.Clock)
	slices.SortFunc(drops, crdt.Dot.Compare)
	r.replica.Conclude(known, slices.Values(drops))
	r.passOn(l, news)
	r.settle()
	l.concludedAt = r.nowNs
	if s.empty {
		r.filled(l)
	}
	r.stats.SessionsConcluded++
	r.stats.CellsDropped += int64(len(drops))
	r.checkOwn()
	return nil
}

// news is what the peer's clock teaches.
func (r *Replicator) news(theirs *crdt.Clock) (news crdt.Dots) {
	ours := r.replica.Clock()
	for _, inc := range theirs.Incs() {
		news = append(news, ours.Missing(theirs.Entry(inc).Dots(inc))...)
	}
	return news
}

// passOn announces to the other neighbours what came by a session, and so not as
// ops that went on from here.
func (r *Replicator) passOn(from *link, news crdt.Dots) {
	for _, l := range r.order {
		if l == from || l.role == RoleQuiet || len(news) == 0 {
			continue
		}
		for _, sp := range news {
			r.announce(l, sp)
		}
		l.haveDue = true
		r.wake(l)
	}
}

// finish ends the session of l if both directions are through.
func (r *Replicator) finish(l *link) {
	s := l.session
	if s == nil || len(s.next) > 0 || !s.core.Done() || !s.judged {
		return
	}
	r.detach(l)
	r.sessionEnds(l, s)
	r.stats.SessionsDone++
	l.backoff, l.unequal = 0, 0
	l.calm = min(max(2*l.calm, minCalm), maxBackoff)
	l.calmAt = r.nowNs + l.calm
	l.summaryDue = true
	if s.held {
		r.require(l, needFuse, r.cfg.Limits.FuseRetry)
	}
}

// hurry shortens the wait for the next session that summaries bring: something
// was left to one, so that they differ for a reason that does not go by itself.
func (r *Replicator) hurry(l *link) {
	l.calm = min(l.calm, hurriedCalm)
	l.calmAt = min(l.calmAt, r.nowNs+hurriedCalm)
}

// closeSession drops the session of l, which was not finished: another one is
// wanted after a while.
func (r *Replicator) closeSession(l *link) {
	s := l.session
	if s == nil {
		return
	}
	r.detach(l)
	l.behind = l.behind || s.behind
	l.backoff = min(max(2*l.backoff, minBackoff), maxBackoff)
	jitter := r.cfg.Rand.Int64N(l.backoff/2 + 1)
	r.require(l, needRetry, time.Duration(l.backoff+jitter))
}

// abort ends the session of l, if there is one, and tells the peer.
func (r *Replicator) abort(l *link) {
	if l.session == nil {
		return
	}
	r.stats.SessionsAborted++
	l.abortDue, l.abortID = true, l.session.id
	r.closeSession(l)
}

// aborted takes the peer's word that it ended a session.
func (r *Replicator) aborted(l *link, token, id uint64) {
	if s := l.session; s == nil || s.id != id || token != l.token() {
		r.stats.DropStaleSession++
		return
	}
	r.stats.SessionsAbortedByPeer++
	r.closeSession(l)
}

// busy takes the peer's refusal of a session that we opened.
func (r *Replicator) busy(l *link, id, ms uint64) {
	s := l.session
	if s == nil || s.id != id || !s.outbound {
		r.stats.DropStaleSession++
		return
	}
	r.stats.BusyReceived++
	l.doubt.busyAt = r.nowNs
	r.detach(l)
	l.behind = l.behind || s.behind
	jitter := r.cfg.Rand.Uint64N(ms/2 + 1)
	r.require(l, needRetry, time.Duration(ms+jitter)*time.Millisecond)
}

// tickSessions brings sessions forward, and gives up those in which nothing has
// moved.
func (r *Replicator) tickSessions() {
	for _, l := range r.order {
		r.advance(l)
		if s := l.session; s != nil && r.nowNs-s.activeAt >= int64(r.cfg.Limits.SessionIdle) {
			r.stats.SessionsTimedOut++
			r.abort(l)
		}
	}
}

// sessionReady reports whether the session of l has a message that may be sent.
func (r *Replicator) sessionReady(l *link) bool {
	s := l.session
	if s == nil || l.choked || s.paced && !r.cfg.Pace.Ready(r.nowNs) {
		return false
	}
	if len(s.next) == 0 {
		s.next, _ = s.core.NextMessage(s.next, max(l.frame-sessionOverhead, minSessionMessage))
	}
	return len(s.next) > 0
}

// appendSessions appends session messages while they fit. It does not conclude
// the session, so that making a frame never changes the replica: Step and Tick
// do.
func (r *Replicator) appendSessions(l *link, from, full int) {
	for s := l.session; r.sessionReady(l); {
		if r.enc.Len() > from && r.enc.Len()+len(s.next)+sessionOverhead > full {
			return
		}
		appendSession(r.enc, envelope{link: l.token(), id: s.id, number: s.sent}, s.next)
		s.sent++
		s.activeAt = r.nowNs
		r.stats.SessionBytesSent += int64(len(s.next))
		if s.paced {
			r.cfg.Pace.Spend(len(s.next))
		}
		s.next = s.next[:0]
	}
}
