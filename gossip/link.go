package gossip

import (
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
)

// link is one connection to a peer, from LinkUp to LinkDown. What waits to be
// sent is kept as state and encoded when the writer asks for a frame, so that a
// slow link gathers and never queues frames.
type link struct {
	peer  PeerID
	role  Role
	begin bool // we begin the sessions of this link: we are the lower of the two
	rtt   time.Duration
	near  bool  // in the zone of this node
	frame int   // the size of frames that NextFrame was last asked for
	awake bool  // the writer was woken, and NextFrame has not said false since
	since int64 // when it came up, or got its role

	// The trees.
	slot    int
	marked  bool     // an origin may have marks on this link
	epoch   int      // of the origins' parent
	peerInc crdt.Inc // of the peer, 0 if it did not say

	mine, theirs uint64 // the tokens of the hellos
	met          bool   // theirs has arrived
	broken       bool   // a frame was malformed

	// Waiting to be sent.
	helloDue   bool
	summaryDue bool
	ask        bool // in the summary
	busyDue    bool
	busyID     uint64
	busyMs     uint64
	abortDue   bool
	abortID    uint64
	behindDue  bool
	chokeDue   bool
	unpush     bool        // the peer pruned origins of which ops may wait
	have       []crdt.Span // to announce, in no order
	haveAt     int64       // when the first of have came
	haveDue    bool        // announce with the next frame
	haveLarge  []crdt.Span // the same, of large ops
	graft      crdt.Dots   // to ask for
	prune      []crdt.Inc  // to be told
	beacons    []beacon    // one of an origin
	asks       []crdt.Inc  // origins that ask for acknowledgements
	acks       []crdt.Inc  // origins to which acknowledgements are to be told
	wanted     crdt.Dots   // asked for by the peer
	replies    []*crdt.Op
	queue      queue
	large      queue // of large ops
	weight     int   // bytes in both, as last weighed
	choked     bool  // the peer takes no ops for now
	last       lane  // that the last frame began with
	lastOther  lane  // the same, laneSmall left out

	// Summaries.
	sentRoot  reconcile.Root // in the last one sent
	sentAt    int64          // when
	idleAt    int64          // when an unchanged one is due
	peerEmpty bool           // the peer's last summary counted no cells
	peerCells int            // how many it counted
	heard     bool           // a summary has arrived
	heardAt   int64          // when the last one did
	heardRoot reconcile.Root // of this replica at that time
	inSync    bool
	unequal   int // in a row
	doubt     doubt

	offset time.Duration // of the peer's clock from ours, at the last summary

	// Sessions.
	behind   bool   // ops were dropped, and no session has been begun since
	need     need   // why a session is wanted, or needNone
	needAt   int64  // not before
	checking bool   // the peer was asked whether it is still needed
	backoff  int64  // before the next try, after sessions that failed
	calm     int64  // after a session, summaries alone bring no other for so long
	calmAt   int64  // until when
	opened   uint64 // sessions begun here
	session  *session

	concludedAt int64 // when a session last ended with a conclusion here
}

// differs reports whether the last summary of the peer was not equal.
func (l *link) differs() bool { return l.heard && !l.inSync }

// token recognises this link's session messages.
func (l *link) token() uint64 { return l.mine + l.theirs }

// mergeBack is how many of the newest spans are looked at for one that a new one
// continues: about as many as there are origins that write at the same time.
const mergeBack = 32

// announce adds a span to what is announced, up to limit spans.
func (l *link) announce(nowNs int64, sp crdt.Span, limit int) (dropped bool) {
	if len(l.have) == 0 {
		l.haveAt = nowNs
	}
	for i := len(l.have) - 1; i >= max(0, len(l.have)-mergeBack); i-- {
		if last := &l.have[i]; last.Inc == sp.Inc && last.Hi+1 == sp.Lo {
			last.Hi = sp.Hi
			return false
		}
	}
	if len(l.have) >= limit {
		return true
	}
	l.have = append(l.have, sp)
	return false
}

// takeHave is what is to be announced, in compact spans.
func (l *link) takeHave() crdt.Dots {
	d := dotsOf(l.have)
	l.have, l.haveDue = l.have[:0], false
	return d
}

// control reports whether anything other than ops and session messages waits.
func (l *link) control() bool {
	return l.helloDue || l.summaryDue || l.busyDue || l.abortDue || l.behindDue || l.chokeDue ||
		l.haveDue || len(l.haveLarge) > 0 || len(l.graft) > 0 || len(l.prune) > 0 || len(l.beacons) > 0 ||
		len(l.asks) > 0 || len(l.acks) > 0
}

// small reports whether small ops wait, or ops are to be looked up.
func (l *link) small() bool { return l.queue.refs > 0 || len(l.replies) > 0 || len(l.wanted) > 0 }

// ops reports whether any ops wait.
func (l *link) ops() bool { return l.small() || l.large.refs > 0 }

// queued reports whether ops wait that nobody asked for.
func (l *link) queued() bool { return l.refs() > 0 }

// refs is the number of them.
func (l *link) refs() int { return l.queue.refs + l.large.refs }

// lagging reports whether a session is to be asked for since ops were dropped.
func (l *link) lagging() bool { return l.behind && l.need == needNone && l.session == nil }
