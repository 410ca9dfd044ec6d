package gossip

import (
	"math/bits"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// LagBuckets is the number of buckets of Stats.Lag.
const LagBuckets = 16

// Stats are counts since the Replicator was made, and gauges where it says so.
// They may be copied.
type Stats struct {
	// Ops.
	OpsIssued     int64 // minted here
	OpsReceived   int64
	OpsDuplicate  int64 // of the received, told nothing new
	OpsSent       int64 // pushed or grafted, over all links
	OpsCoalesced  int64 // never sent because a newer one stood for them
	OpsGrafted    int64 // sent because a peer asked
	OpsFarAhead   int64 // received ops and cells whose HLC is over MaxClockDrift ahead
	MaxAheadMs    int64 // the most that an HLC was ahead, ever
	LastLagMs     int64 // gauge: now less the HLC of the last new op
	Lag           [LagBuckets]int64
	LagSumMs      int64
	OpsFed        int64 // of a mirror, new here when they were fed
	StatesFed     int64 // of a mirror
	ForeignDots   int64 // dots of our own Inc met that were not issued here
	CellsProvided int64 // provisional cells taken in sessions

	// Frames.
	FramesSent, FramesReceived int64
	BytesSent, BytesReceived   int64

	// Announcements.
	IHavesSent, IHavesReceived int64 // dots
	GraftsSent, GraftsReceived int64 // messages
	GraftsUnmatched            int64 // messages asking for more than the ring holds

	// Trees: (link, origin) pairs.
	PrunesSent, PrunesReceived int64
	OpsUnqueued                int64 // announced after all, because a prune came

	// Back-pressure.
	ChokesSent, ChokesReceived int64
	BehindSent, BehindReceived int64
	LargeSent                  int64 // ops of the large lane

	// Beacons.
	BeaconsSent, BeaconsReceived int64

	// Acknowledgements.
	AsksSent, AsksReceived int64
	AsksRepeated           int64 // by the origin, since what it waits for did not come
	AcksSent, AcksReceived int64 // rows, one of a member each

	// Summaries and sessions.
	SummariesSent, SummariesReceived int64
	SummariesUnequal                 int64
	SessionsOpened, SessionsAccepted int64
	SessionsConcluded                int64 // directions: at most one for each session here
	SessionsDone                     int64
	SessionsAborted                  int64 // by us, for whatever reason
	SessionsAbortedByPeer            int64
	SessionsTimedOut                 int64
	SessionsLost                     int64 // with their link
	SessionBytesSent                 int64
	SessionBytesReceived             int64
	CellsDropped                     int64 // by conclusions
	BusySent, BusyReceived           int64
	FuseBlown                        int64 // conclusions held back
	FuseReleased                     int64 // conclusions allowed by a second verdict or by the operator
	DivergenceAlarms                 int64 // raised: see Divergences

	// Scrubs.
	Scrubs           int64 // tries compared with what they stand for
	ScrubDifferences int64 // cells and sums that were wrong: an alarm

	// Drops, by reason. What they drop is repaired by a session.
	DropNoLink       int64 // frames from a peer without a link
	DropBrokenLink   int64 // frames after a malformed one
	DropMalformed    int64 // frames, the link is to be closed
	DropUnknownKind  int64 // messages of a later version
	DropBeforeHello  int64 // messages before the peer's hello
	DropStaleSession int64 // session messages of another link or session
	DropQueue        int64 // queued ops, at an overflow
	DropIHave        int64 // announcements not sent, spans
	DropWant         int64 // announcements not waited for, spans
	DropGraft        int64 // requests not served, spans
	DropPrune        int64 // prunes not sent: later duplicates bring others
	DropBudget       int64 // queued ops, over the budget of the node
	DropOrigin       int64 // origins forgotten: their next op finds the tree anew
	DropBeacon       int64 // of too many origins, for a link that lags, or of a clock far ahead
	DropAsk          int64 // origins forgotten that asked for acknowledgements: they ask again
	DropAck          int64 // acknowledgements of too many members, or of an origin that was forgotten
	DropForeign      int64 // ops, cells and beacons that are not of the origin of a mirror
	DropDeleted      int64 // deletions that a mirror could not keep in order
	Overflows        int64 // queues dropped: links that fell behind
	LinksLost        int64

	// Gauges.
	Links, LinksBehind   int
	LinksChoked          int // by the peer
	Choked               int // 1: the peers were asked to send no ops
	Origins              int // whose trees are remembered
	LinksEager           int // pairs of these and links on which their ops are pushed
	LinksLazy            int // and on which they are announced
	Sessions             int
	QueuedOps, QueuedMax int // over all links, and on the longest
	QueuedBytes          int
	QueuedLarge          int // of QueuedOps, in the large lanes
	RingOps, RingBytes   int
	Cells, ClockEntries  int
	Pending              int
	Wants                int
	FuseHeld             int // drops that wait for a second verdict
	Damaged              int // 1: see Replicator.Damaged
	// Of the session that fills this replica: see Bootstrap.
	Bootstrapping, BootstrapTotal, BootstrapDone int
}

// Lag is the upper bound of bucket i of Stats.Lag: 1 ms for the first, doubled
// from each to the next. The last bucket is unbounded.
func Lag(i int) time.Duration { return time.Millisecond << i }

func lagBucket(ms int64) int {
	if ms <= 1 {
		return 0
	}
	return min(bits.Len64(uint64(ms-1)), LagBuckets-1)
}

// LinkStats is the state of one link.
type LinkStats struct {
	Peer        PeerID
	QueuedOps   int
	QueuedBytes int
	Role        Role
	Choked      bool // the peer takes no ops for now
	Behind      bool // fell behind, and waits for a session
	Session     bool // one is open
	InSync      bool // the last summary was equal
	Unequal     int  // unequal summaries in a row
	// ClockOffset is how far the peer's clock is ahead of ours, known to half a
	// round trip and the time in queues; 0 before the first summary (Heard).
	ClockOffset time.Duration
	Heard       bool
}

// Stats counts what happened, and measures what is held.
func (r *Replicator) Stats() Stats {
	s := r.stats
	s.Links = len(r.order)
	for _, l := range r.order {
		s.OpsCoalesced += l.queue.merge + l.large.merge
		s.QueuedOps += l.refs()
		s.QueuedBytes += l.weight
		s.QueuedMax = max(s.QueuedMax, l.refs())
		s.QueuedLarge += l.large.refs
		if l.behind {
			s.LinksBehind++
		}
		if l.choked {
			s.LinksChoked++
		}
		if l.session != nil {
			s.Sessions++
		}
	}
	if r.choked {
		s.Choked = 1
	}
	s.Origins, s.DropOrigin = len(r.tree.origins), r.tree.evicted
	for o := r.tree.oldest; o != nil; o = o.newer {
		for _, l := range r.order {
			switch {
			case l.role == RoleQuiet:
			case r.eager(l, o):
				s.LinksEager++
			default:
				s.LinksLazy++
			}
		}
	}
	s.RingOps, s.RingBytes = r.ring.ops.Len(), r.ring.bytes
	s.Cells, s.ClockEntries, s.Pending = r.replica.Cells().Len(), r.replica.Clock().Len(), r.replica.PendingLen()
	s.Wants = len(r.wants)
	s.FuseHeld = r.fuse.held(r.nowNs)
	if r.damaged {
		s.Damaged = 1
	}
	if b := r.Bootstrap(); b.Running {
		s.Bootstrapping, s.BootstrapTotal, s.BootstrapDone = 1, b.Total, b.Done
	}
	return s
}

// Links is the state of every link, ascending by peer.
func (r *Replicator) Links() []LinkStats {
	out := make([]LinkStats, 0, len(r.order))
	for _, l := range r.order {
		out = append(out, LinkStats{
			Peer: l.peer, Role: l.role, QueuedOps: l.refs(), QueuedBytes: l.weight, Choked: l.choked, Behind: l.behind,
			Session: l.session != nil, InSync: l.inSync, Unequal: l.unequal, ClockOffset: l.offset, Heard: l.heard,
		})
	}
	return out
}

// noteHLC keeps the newest HLC that the local clock may follow. One that is too
// far ahead is counted, and changes nothing but the order in which siblings are
// shown.
func (r *Replicator) noteHLC(h crdt.HLC) {
	if h <= r.maxHLC {
		return
	}
	ahead := h.WallMs() - r.wallNs/int64(time.Millisecond)
	if ahead > r.cfg.Limits.MaxClockDrift.Milliseconds() {
		r.stats.OpsFarAhead++
		r.stats.MaxAheadMs = max(r.stats.MaxAheadMs, ahead)
		return
	}
	r.maxHLC = h
}

func (r *Replicator) noteLag(origin crdt.Inc, h crdt.HLC) {
	ms := r.wallNs/int64(time.Millisecond) - h.WallMs()
	r.stats.LastLagMs = ms
	r.stats.Lag[lagBucket(ms)]++
	r.stats.LagSumMs += max(ms, 0)
	r.lags.note(r.lags.origin(origin), ms, r.nowNs)
}
