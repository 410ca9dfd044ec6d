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
	ForeignDots   int64 // dots of our own Inc met that were not issued here
	CellsProvided int64 // provisional cells taken in sessions

	// Frames.
	FramesSent, FramesReceived int64
	BytesSent, BytesReceived   int64

	// Announcements.
	IHavesSent, IHavesReceived int64 // dots
	GraftsSent, GraftsReceived int64 // messages
	GraftsUnmatched            int64 // messages asking for more than the ring holds

	// Beacons.
	BeaconsSent, BeaconsReceived int64

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
	DropBeacon       int64 // of too many origins, for a link that lags, or of a clock far ahead
	Overflows        int64 // queues dropped: links that fell behind
	LinksLost        int64

	// Gauges.
	Links, LinksBehind   int
	Sessions             int
	QueuedOps, QueuedMax int // over all links, and on the longest
	QueuedBytes          int
	RingOps, RingBytes   int
	Cells, ClockEntries  int
	Pending              int
	Wants                int
	FuseHeld             int // drops that wait for a second verdict
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
	Behind      bool // fell behind, and waits for a session
	Session     bool // one is open
	InSync      bool // the last summary was equal
	Unequal     int  // unequal summaries in a row
}

// Stats counts what happened, and measures what is held.
func (r *Replicator) Stats() Stats {
	s := r.stats
	s.Links = len(r.order)
	for _, l := range r.order {
		s.OpsCoalesced += l.queue.merge
		s.QueuedOps += l.queue.refs
		s.QueuedBytes += l.queue.bytes
		s.QueuedMax = max(s.QueuedMax, l.queue.refs)
		if l.behind {
			s.LinksBehind++
		}
		if l.session != nil {
			s.Sessions++
		}
	}
	s.RingOps, s.RingBytes = r.ring.n, r.ring.bytes
	s.Cells, s.ClockEntries, s.Pending = r.replica.Cells().Len(), r.replica.Clock().Len(), r.replica.PendingLen()
	s.Wants = len(r.wants)
	s.FuseHeld = r.fuse.held()
	return s
}

// Links is the state of every link, ascending by peer.
func (r *Replicator) Links() []LinkStats {
	out := make([]LinkStats, 0, len(r.order))
	for _, l := range r.order {
		out = append(out, LinkStats{
			Peer: l.peer, QueuedOps: l.queue.refs, QueuedBytes: l.queue.bytes, Behind: l.behind,
			Session: l.session != nil, InSync: l.inSync, Unequal: l.unequal,
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
	ahead := h.WallMs() - r.nowNs/int64(time.Millisecond)
	if ahead > r.cfg.Limits.MaxClockDrift.Milliseconds() {
		r.stats.OpsFarAhead++
		r.stats.MaxAheadMs = max(r.stats.MaxAheadMs, ahead)
		return
	}
	r.maxHLC = h
}

func (r *Replicator) noteLag(origin crdt.Inc, h crdt.HLC) {
	ms := r.nowNs/int64(time.Millisecond) - h.WallMs()
	r.stats.LastLagMs = ms
	r.stats.Lag[lagBucket(ms)]++
	r.lags.note(r.lags.origin(origin), ms, r.nowNs)
}
