package reconcile

import (
	"errors"
	"iter"

	"github.com/meshkv/meshkv/crdt"
)

// Errors of a session. After any error the session is dead: drop it, and tell
// the peer with AppendAbort unless the error is ErrAborted.
var (
	// ErrProtocol: the peer sent what no session of ours would.
	ErrProtocol = errors.New("reconciliation protocol violated")
	// ErrAborted: the peer gave the session up.
	ErrAborted = errors.New("session aborted by the peer")
)

// A Snapshot is the state of one replica, taken in one step: S⁰ as a snapshot
// of its trie, a clone of its clock C⁰, and its pending deaths D⁰.
type Snapshot struct {
	Data    *Trie
	Clock   *crdt.Clock
	Pending crdt.Dots
}

// Stats are the counts of one session.
type Stats struct {
	SentBytes, ReceivedBytes         uint64 // payloads, cells included
	SentCells, ReceivedCells         uint64
	SentCellBytes, ReceivedCellBytes uint64 // of the above, what the cells took
	SentPayloads, ReceivedPayloads   uint64
	Offered                          uint64 // dots offered to the peer before their cells
	Drops                            int    // live cells of the snapshot that the end of the session will drop
}

// A Session is one side of one reconciliation between two replicas.
type Session struct {
	id uint64
}

// Open begins a session with a peer, as its initiator.
func Open(id, seed uint64, snap Snapshot) *Session { return &Session{id: id} }

// Accept begins the other side of a session, on its first payload, which must
// then be given to Step.
func Accept(id, seed uint64, snap Snapshot) *Session { return &Session{id: id} }

// Peek is the session that a payload belongs to, and whether the payload opens
// it.
func Peek(payload []byte) (id uint64, opens bool, err error) { return 0, false, nil }

// AppendAbort appends a payload that ends session id at the peer.
func AppendAbort(buf []byte, id uint64) []byte { return buf }

// ID is the session's number, chosen by its initiator.
func (s *Session) ID() uint64 { return s.id }

// Step takes one payload from the peer. Payloads must come complete and in
// order. Then call TakeProvided and, after that, Concluded.
func (s *Session) Step(payload []byte) error { return nil }

// NextMessage appends the next payload for the peer to buf: at most limit
// bytes, but for a single cell that is larger. It reports false, and returns
// buf as it was, if there is nothing to send before the next Step. Call
// Concluded afterwards.
func (s *Session) NextMessage(buf []byte, limit int) ([]byte, bool) { return buf, false }

// Ready reports whether NextMessage might have something to send.
func (s *Session) Ready() bool { return false }

// TakeProvided returns the cells that the peer sent since the last call. The
// caller gives each to its replica's Provide.
func (s *Session) TakeProvided() []*crdt.Cell { return nil }

// Added tells the session that a cell became live at this replica since the
// snapshot, for whatever reason, this session's own cells included.
func (s *Session) Added(d crdt.Dot) {}

// Concluded reports, once, that this side of the session is complete: all that
// the peer's snapshot holds and this replica did not know was provided. The
// caller calls its replica's Conclude with the results at once. The other side
// may need more from this one: go on until Done.
func (s *Session) Concluded() (known crdt.Known, lacks iter.Seq[crdt.Dot], ok bool) {
	return crdt.Known{}, nil, false
}

// Done reports whether both directions are finished, as far as this side has to
// do with them.
func (s *Session) Done() bool { return false }

// Stats are the session's counts so far.
func (s *Session) Stats() Stats { return Stats{} }
