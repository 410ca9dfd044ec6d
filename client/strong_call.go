package client

import "context"

// A StrongCaller carries out the primitive calls of strong keyspaces, of which Strong is
// made: an embedded node does it itself, a Client asks its node. A call may be
// carried out again after ErrUnavailable, ErrNoQuorum and ErrOverloaded; after
// ErrUnknownOutcome only if it is idempotent, or names a Request.
type StrongCaller interface {
	StrongCall(ctx context.Context, keyspace string, call *StrongCall) (StrongReply, error)
}

// A StrongCallKind says what a call asks for, and which fields of it and of the reply
// count. Numbers are part of the protocol: append only.
type StrongCallKind uint8

// The kinds of calls.
const (
	CallTxn        StrongCallKind = iota + 1 // Txn → Txn
	CallGrant                                // TTL → Session, TTL
	CallKeepAlive                            // Session → TTL; ErrSessionLost
	CallRevoke                               // Session
	CallAcquire                              // Name, Session, Claim, Mode, Places, Try, Delay, Value, Wait → Token; 0: still waiting when Wait was over
	CallRelease                              // Name, Token; ErrNotHeld
	CallAbort                                // Name, Session, Claim; ErrNotHeld
	CallProclaim                             // Name, Token, Value; ErrNotHeld
	CallLockInfo                             // Name → Holders, Waiting, Revision; with Wait: once something is newer than Revision in the call, or Wait is over
	CallDefinePool                           // Name, First, Last
	CallRemovePool                           // Name
	CallAllocate                             // Name, First (At), Size, Align, Exact, Session, Label → First, Size, Token
	CallFree                                 // Name, First, Token
	CallListPool                             // Name → Allocations
	CallCompact                              // Revision
	CallStatus                               // → Revision, Compacted
)

// A StrongCall is one primitive call.
type StrongCall struct {
	Kind StrongCallKind
	// Request makes a call that changes something take effect once, however often it is
	// made with the same text. Empty: each time. 1 to 64 bytes, unique for ever.
	Request  string
	Txn      *Txn
	Name     string // of a lock, election or pool
	Session  SessionID
	Claim    uint64 // of the session's choice; the same claim made again is the same
	Mode     LockMode
	Places   uint64
	Try      bool
	Exact    bool
	Delay    int64 // milliseconds
	TTL      int64 // milliseconds
	Wait     int64 // milliseconds
	Value    []byte
	Token    FencingToken
	First    uint64
	Last     uint64
	Size     uint64
	Align    uint64
	Label    string
	Revision uint64
}

// A StrongReply is the answer to a StrongCall.
type StrongReply struct {
	Revision    uint64
	Compacted   uint64
	Txn         TxnResult
	Session     SessionID
	TTL         int64 // milliseconds
	Token       FencingToken
	Known       bool // of CallLockInfo: a majority confirmed it
	Holders     []LockHolder
	Waiting     []LockHolder
	First, Size uint64
	Allocations []Allocation
}
