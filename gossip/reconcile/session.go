package reconcile

import (
	"errors"
	"iter"

	"github.com/meshkv/meshkv/crdt"
)

// Errors of a session. After any error the session is dead: drop it, and tell
// the peer with AppendAbort unless the error is ErrAborted. Malformed bytes are
// reported by errors that wrap crdt.ErrCodec.
var (
	// ErrProtocol: the peer sent what no session of ours would.
	ErrProtocol = errors.New("reconciliation protocol violated")
	// ErrAborted: the peer gave the session up.
	ErrAborted = errors.New("session aborted by the peer")
)

// limits bound what a session holds and has on its way, and say when lists are
// better than sums. Both sides must use the same; tests use tiny ones.
type limits struct {
	queries    int    // that are not finished; the responder checks it
	stack      int    // queries that the initiator keeps to be sent
	tasks      int    // of the initiator, at which it stops to query
	offered    int    // dots that are offered and not answered
	flight     int    // bytes of cells that are not acknowledged
	scan       int    // cells looked at in one call of NextMessage
	dataList   uint64 // cells under a prefix that are listed; at most dataListMax
	clockList  uint64 // entries under a prefix that are listed
	valuesOver uint64 // cells under a prefix, beyond those of the peer, that are sent without being offered first
	islands    int    // of one piece of an entry
}

func defaultLimits() limits {
	return limits{
		queries: 256, stack: 16 << 10, tasks: 1 << 10, offered: 4096,
		flight: 256 << 10, // 4 frames of 64 KiB
		scan:   1 << 14, dataList: dataListMax, clockList: 8, valuesOver: 64, islands: 1 << 11,
	}
}

// A Snapshot is the state of one replica, taken in one step: S⁰ as a snapshot
// of its trie, a clone of its clock C⁰, and its pending deaths D⁰. The session
// only reads it. Added must be told of every cell that became live after it.
type Snapshot struct {
	Data    *Trie
	Clock   *crdt.Clock
	Pending crdt.Dots
}

// has reports whether d is in C⁰ ∪ D⁰.
func (s Snapshot) has(d crdt.Dot) bool { return s.Clock.Contains(d) || s.Pending.Contains(d) }

// Stats are the counts of one session.
type Stats struct {
	SentBytes, ReceivedBytes         uint64 // payloads, cells included
	SentCellBytes, ReceivedCellBytes uint64 // of these, what the cells took
	SentCells, ReceivedCells         uint64
	SentPayloads, ReceivedPayloads   uint64
	Offered                          uint64 // dots offered to the peer before their cells
	Drops                            int    // cells of S⁰ that the end of the session will drop, as far as known
}

// A Session is one side of one reconciliation between two replicas A and B, on
// snapshots that each took at its start. It has two phases, both driven by the
// initiator, which descends from the roots to what differs.
//
// In the first phase each side learns C⁰ and D⁰ of the other. In the second, a
// subtree of live cells that differs is narrowed down by sums until one side
// lists its dots there. For a cell that one side holds in its S⁰ and the other
// does not, the holder decides by the other's C⁰ ∪ D⁰: if the dot is in it, the
// cell is dead, and the holder drops it at its end of the session; if not, the
// holder offers it. So each side gets to know
//
//	its drops:    S⁰ \ S⁰ of the peer, within C⁰ ∪ D⁰ of the peer
//	what it lacks: S⁰ of the peer \ S⁰, outside of its own C⁰ ∪ D⁰: all listed,
//	               and all provided unless they became live here meanwhile.
//
// Of the cells that became live since the snapshot (their dots are outside of
// C⁰ ∪ D⁰, from which no cell ever comes to life), those that the peer knew and
// did not list are dead, too.
//
// Not safe for concurrent use. It holds O(1) memory beside the snapshot, what is
// on its way within the windows, the drops, and the dots added since.
type Session struct {
	id        uint64
	seed      uint64
	initiator bool
	limits    limits
	snap      Snapshot
	clock     *clockTree
	err       error
	stats     Stats
	enc       *crdt.Encoder
	dec       *crdt.Decoder
	scratch   []byte

	// What the peer told of its snapshot.
	greeted bool       // its greeting is here
	roots   Root       // from the greeting
	spans   uint64     // of D⁰ still to come
	dots    uint64     // of D⁰ so far
	known   crdt.Known // C⁰ and D⁰; complete once settled
	settled bool
	entries entriesIn // a list of entries that arrives in several messages
	pieces  int       // of entries received

	// Cells. A dot is in added or in listed, never in both.
	drops    []crdt.Dot
	added    map[crdt.Dot]struct{} // live here since the snapshot, not listed by the peer, and known to it once settled
	listed   map[crdt.Dot]bool     // listed by the peer, not live here yet; true: its cell is awaited
	awaited  int                   // cells that were asked for and are not here
	provided []*crdt.Cell          // received, not yet taken
	handed   []*crdt.Cell          // what the last TakeProvided returned

	// To be sent, in this order.
	greet    bool
	pending  crdt.Dots // rest of D⁰
	unacked  int       // bytes of cells received and not acknowledged
	wants    []mask    // answers to offers
	wanted   []*crdt.Cell
	current  *task  // query that was sent in part
	queries  []task // of the initiator: a stack
	tasks    []task // first in, first out
	blocked  bool   // tasks wait for an answer or acknowledgement
	ends     uint64 // queries finished and not told
	flight   int    // bytes of cells sent and not acknowledged
	offered  [][]*crdt.Cell
	offeredN int
	scanned  int // in this call of NextMessage

	// Queries that are not finished: of the initiator those that it sent, the
	// oldest first; of the responder those received.
	open     []query
	openN    int
	openSums int  // of open, those that send sums
	finished bool // kindDone was sent or received
	taken    bool // Concluded has reported
}

// A query is one that the initiator has sent.
type query struct {
	kind   uint8
	prefix prefix
	seen   uint16 // children that were replied to
}

// Open begins a session with a peer, as its initiator. The id must differ from
// those of other sessions on the same link; small ones are cheap.
func Open(id, seed uint64, snap Snapshot) *Session { return open(id, seed, snap, defaultLimits()) }

func open(id, seed uint64, snap Snapshot, l limits) *Session {
	s := accept(id, seed, snap, l)
	s.initiator = true
	if s.clock.sum(prefix{}).Count <= s.limits.clockList {
		s.push(task{kind: kindClockList})
	} else {
		s.push(task{kind: kindClockSums})
	}
	return s
}

// Accept begins the other side of a session, on its first payload, which must
// then be given to Step.
func Accept(id, seed uint64, snap Snapshot) *Session { return accept(id, seed, snap, defaultLimits()) }

func accept(id, seed uint64, snap Snapshot, l limits) *Session {
	return &Session{
		id: id, seed: seed, snap: snap, limits: l, clock: newClockTree(seed, snap.Clock),
		enc: crdt.NewEncoder(), dec: crdt.NewDecoder(),
		known: crdt.Known{Clock: snap.Clock.Clone()},
		added: make(map[crdt.Dot]struct{}), listed: make(map[crdt.Dot]bool),
		greet: true, pending: snap.Pending,
	}
}

// ID is the session's number, chosen by its initiator.
func (s *Session) ID() uint64 { return s.id }

// Initiator reports whether this side opened the session.
func (s *Session) Initiator() bool { return s.initiator }

// Added tells the session that a cell became live at this replica since the
// snapshot, for whatever reason, this session's own cells included.
func (s *Session) Added(d crdt.Dot) {
	if s.taken || s.settled && !s.known.Has(d) {
		return // nothing that the session decides depends on it
	}
	if _, ok := s.listed[d]; !ok {
		s.added[d] = struct{}{}
	}
}

// list notes that the peer's S⁰ has d, which is not in the own C⁰ ∪ D⁰ nor in
// the own S⁰, and reports whether it has not become live here meanwhile.
func (s *Session) list(d crdt.Dot) (lacking bool) {
	if _, ok := s.added[d]; ok {
		delete(s.added, d)
		return false
	}
	return true
}

// TakeProvided returns the cells that the peer sent since the last call. Before
// it calls any other method, the caller gives each to its replica's Provide and
// reports by Added those that were taken. The slice is the caller's until the
// next call.
func (s *Session) TakeProvided() []*crdt.Cell {
	s.release()
	s.handed, s.provided = s.provided, s.handed[:0]
	return s.handed
}

// release forgets that the cells handed out were listed: by now each is live
// here or will never be.
func (s *Session) release() {
	for _, c := range s.handed {
		if !s.listed[c.Dot] {
			delete(s.listed, c.Dot)
		}
	}
	clear(s.handed)
	s.handed = s.handed[:0]
}

// settle ends the phase of the clocks: known is complete.
func (s *Session) settle() {
	s.settled = true
	for d := range s.added {
		if !s.known.Has(d) {
			delete(s.added, d)
		}
	}
}

// Concluded reports, once, that this side of the session is complete: all that
// the peer's snapshot holds and this replica did not know was provided. The
// caller calls its replica's Conclude with the results at once, nothing coming
// in between. The other side may need more from this one: go on until Done.
func (s *Session) Concluded() (known crdt.Known, lacks iter.Seq[crdt.Dot], ok bool) {
	if s.err != nil || s.taken || len(s.provided) > 0 || !s.complete() {
		return crdt.Known{}, nil, false
	}
	s.taken = true
	drops, added := s.drops, s.added
	s.drops, s.added, s.listed = nil, nil, nil
	s.handed = nil
	return s.known, func(yield func(crdt.Dot) bool) {
		for _, d := range drops {
			if !yield(d) {
				return
			}
		}
		for d := range added {
			if !yield(d) {
				return
			}
		}
	}, true
}

// complete reports whether nothing more can come that matters here: every
// difference has been walked, and what was asked for is here.
func (s *Session) complete() bool {
	if !s.settled || s.awaited > 0 || len(s.tasks) > 0 {
		return false
	}
	if s.initiator {
		return len(s.queries) == 0 && s.current == nil && s.openN == 0
	}
	return s.finished
}

// Done reports whether both directions are finished as far as this side has to
// do with them, and this side has concluded.
func (s *Session) Done() bool { return s.taken && s.finished && s.err == nil }

// PeerCells is the number of cells in the peer's snapshot; 0 before its greeting.
func (s *Session) PeerCells() uint64 { return s.roots.Data.Count }

// Stats are the session's counts so far.
func (s *Session) Stats() Stats { return s.stats }
