package client

import (
	"context"
	"time"
)

// A Strong is a strong keyspace: a Raft group of its own. Writes, and reads unless they
// ask for less, are linearizable, and all are served by any node; without a majority
// of the voters they end with ErrNoQuorum within their time. The revision counts the
// commands that changed something: 1 when the keyspace is empty, 2 after the first.
//
// The methods of Keyspace have this meaning here: a Version is the revision of the
// last change of a key (Seq; Inc is 0), so that IfVersion and IfAbsent work; Get and List
// are linearizable unless their options say Local; a Cursor of a Watch is a
// revision, good at every node.
type Strong interface {
	Keyspace

	// Txn does Then if all Compares hold, else Else, at one moment and as a whole.
	Txn(ctx context.Context, txn *Txn) (TxnResult, error)

	// NewSession begins a session, which the library keeps alive until it is closed or
	// lost. Locks, elections, keys and allocations can be bound to it, and end with it.
	NewSession(ctx context.Context, o *SessionOptions) (Session, error)

	// Lock waits until this caller alone holds the lock. First come, first served.
	Lock(ctx context.Context, name string, o *LockOptions) (Held, error)
	// TryLock is Lock that does not wait: ErrConflict if another holds the lock or waits.
	TryLock(ctx context.Context, name string, o *LockOptions) (Held, error)
	// RLock waits until no writer holds the lock; readers hold it together.
	RLock(ctx context.Context, name string, o *LockOptions) (Held, error)
	// Semaphore waits for one of a number of places.
	Semaphore(ctx context.Context, name string, places int, o *LockOptions) (Held, error)
	// LockInfo says who holds a lock and who waits.
	LockInfo(ctx context.Context, name string) (LockInfo, error)

	// Campaign waits until this caller leads the election, with value for others to see.
	Campaign(ctx context.Context, name string, value []byte, o *LockOptions) (Leadership, error)
	// Observe follows who leads. The first Next tells the present state.
	Observe(ctx context.Context, name string) (Observer, error)

	// Allocator gives out integers and ranges of a pool.
	Allocator(pool string) Allocator
}

// A SessionID names a session of a strong keyspace. 0 is none.
type SessionID uint64

// A FencingToken is higher than all that were given before in its keyspace, whichever
// lock and leader. What a lock protects should refuse lower ones than it has seen.
type FencingToken uint64

// SessionOptions modify NewSession. Nil and zero values are usable.
type SessionOptions struct {
	// TTL is how long the session lives without a sign of its owner, 1s to 24h. Default 15s.
	TTL time.Duration
}

// A Session is kept alive by its owner. Safe for concurrent use.
type Session interface {
	ID() SessionID
	TTL() time.Duration
	// Lost is closed when the session has ended, or may have: by this machine's
	// monotonic clock and by its wall clock, no later than at the servers.
	Lost() <-chan struct{}
	// Close ends the session, and all that is bound to it, at once. It may be called twice.
	Close(ctx context.Context) error
}

// LockOptions modify locks and campaigns. Nil and zero values are usable.
type LockOptions struct {
	// Session to bind to. Default: one of 15 s that the handle shares.
	Session Session
	// TTL, without a Session: binds to a new one of that TTL, which Unlock ends.
	TTL time.Duration
	// Value is shown to others.
	Value []byte
	// Delay keeps others out for that long after the holder's session has expired.
	// Default 0: fencing tokens protect without one.
	Delay time.Duration
}

// Held is a lock, or a place of a semaphore, that is held. Safe for concurrent use.
type Held interface {
	Token() FencingToken
	Session() SessionID
	// Lost is closed when the lock is held no longer, or may not be; see Session.Lost.
	Lost() <-chan struct{}
	// Unlock gives the lock up. It may be called twice. ErrSessionLost if it was lost before.
	Unlock(ctx context.Context) error
}

// LockInfo is the state of a lock.
type LockInfo struct {
	Name     string
	Holders  []LockHolder // by ascending token
	Waiting  []LockHolder // first come first, at most 100
	Revision uint64
}

// A LockHolder holds a lock or waits for it, with token 0.
type LockHolder struct {
	Session SessionID
	Token   FencingToken
	Mode    LockMode
	Value   []byte
	Delayed bool // its session has expired; the lock is kept for its delay
}

// A LockMode is how a lock is claimed.
type LockMode uint8

// The modes of locks.
const (
	Exclusive LockMode = iota + 1
	Shared
	Place
)

// Leadership is an election that was won. Its term is the token.
type Leadership interface {
	Held
	// Proclaim changes the value that others see.
	Proclaim(ctx context.Context, value []byte) error
}

// An Observer follows an election.
type Observer interface {
	// Next waits for the next change. Changes that came in between may be left out;
	// the last is always told.
	Next(ctx context.Context) (Leader, error)
	Close() error
}

// A Leader is who leads an election.
type Leader struct {
	// Known says that the state is that of a majority, not older than a few seconds.
	// Without one it is false, and the rest is what was known last.
	Known   bool
	Elected bool // there is a leader
	Value   []byte
	Token   FencingToken
	Session SessionID
}

// A Txn is a transaction. No key may be changed twice in what is done.
type Txn struct {
	Compares   []Compare
	Then, Else []TxnOp
}

// A TxnOp is one operation: exactly one field is set.
type TxnOp struct {
	Put    *TxnPut
	Delete *TxnDelete
	Get    *TxnGet
	Txn    *Txn
}

// A TxnPut writes a key.
type TxnPut struct {
	Key     string
	Value   []byte
	Session SessionID // ends the key; 0: none
}

// A TxnDelete deletes a key, or all keys of a range.
type TxnDelete struct {
	Key, End string // as in TxnGet
}

// A TxnGet reads a key, or the keys from Key on and before End. An End of "\x00" is no bound.
type TxnGet struct {
	Key, End string
	Revision uint64 // 0: now
	Limit    int    // 0: none but that of the answer, 4 MiB
}

// A CompareTarget is what a Compare looks at.
type CompareTarget uint8

// The targets. TargetToken looks at a lock: Key is its name, Number the token under
// which it must be held (with Equal): the guard that makes a stale holder's write fail.
const (
	TargetVersion CompareTarget = iota + 1 // number of puts since the key came into being; 0: it is not there
	TargetCreate                           // revision
	TargetMod                              // revision of the last change
	TargetValue
	TargetLease
	TargetToken
)

// A CompareRelation is how the target relates to the number or value given.
type CompareRelation uint8

// The relations: target = given, and so on.
const (
	Equal CompareRelation = iota + 1
	NotEqual
	Less
	Greater
)

// A Compare is a condition of a Txn.
type Compare struct {
	Key, End string // as in TxnGet
	Target   CompareTarget
	Relation CompareRelation
	Number   uint64 // of all targets but TargetValue
	Value    []byte
}

// Guard is the condition that a lock is held under a token.
func Guard(lock string, token FencingToken) Compare {
	return Compare{Key: lock, Target: TargetToken, Relation: Equal, Number: uint64(token)}
}

// A TxnResult is what a transaction did.
type TxnResult struct {
	Succeeded bool // all Compares held
	Revision  uint64
	Results   []TxnOpResult // of the branch taken, one each
}

// A TxnOpResult is what one operation did.
type TxnOpResult struct {
	Entries []StrongEntry // read
	Deleted uint64        // keys
	More    bool          // the limit left some out
	Txn     *TxnResult
}

// A StrongEntry is one version of a key of a strong keyspace.
type StrongEntry struct {
	Key            string
	Value          []byte
	Create, Mod    uint64 // revisions
	Version        uint64 // puts since Create
	Session        SessionID
	ModifiedMillis int64 // Unix time by the clock of the node that took the write
}

// An Allocator gives out blocks of a pool of integers: identifiers, or addresses.
type Allocator interface {
	// Define makes the pool, or changes its bounds: the integers from first to last.
	// ErrConflict if a block would be left outside.
	Define(ctx context.Context, first, last uint64) error
	// Remove removes the pool. ErrConflict unless all of it is free.
	Remove(ctx context.Context) error
	// Allocate takes a free block. ErrPoolExhausted if there is none.
	Allocate(ctx context.Context, o *AllocateOptions) (Allocation, error)
	// Free gives a block back. ErrNotHeld if it is not allocated under the token.
	Free(ctx context.Context, first uint64, token FencingToken) error
	// List is all blocks, ascending.
	List(ctx context.Context) ([]Allocation, error)
}

// AllocateOptions modify Allocate. Nil and zero values are usable.
type AllocateOptions struct {
	// Size of the block, and what its first integer must be a multiple of. Default 1.
	Size, Align uint64
	// At asks for the block that begins there, if Exact is set.
	At    uint64
	Exact bool
	// Session ends the allocation. 0: it stays until it is freed.
	Session SessionID
	// Label is shown in List. At most 1 KiB.
	Label string
}

// An Allocation is a block that was given out.
type Allocation struct {
	First, Size uint64
	Token       FencingToken
	Session     SessionID
	Label       string
}

// A KeyspaceSpec describes a keyspace that is to be created.
type KeyspaceSpec struct {
	Name   string
	Mode   string // "eventual" or "strong"
	Voters int    // of a strong one: 1, 3 or 5. Default 3, or as many as there are servers if fewer
	Quota  uint64 // of a strong one, bytes of data and history. Default 2 GiB
}

// StrongInfo describes the group of a strong keyspace.
type StrongInfo struct {
	Name    string
	Group   string // id, never used again
	Epoch   uint64 // of the configuration; a recovery raises it
	Leader  string // name of its node; empty: not known
	Term    uint64
	Voters  []StrongVoter
	Applied uint64 // log index at the answering node, or at the voter that it asked
	Commit  uint64
	// Revision, Compacted, Keys and Bytes are those of the replica that answered.
	Revision, Compacted uint64
	Keys                int
	Bytes, Quota        uint64
}

// A StrongVoter is a replica of a group.
type StrongVoter struct {
	Server  string
	Replica string // id, another one after the loss of the disk
	Role    string // "voter" or "learner"
	Alive   bool   // as membership sees its server
}

// A RecoveryReport is what RecoverKeyspace did.
type RecoveryReport struct {
	Epoch    uint64
	Survivor string // the server whose replica is the new beginning
	Index    uint64 // of its last log entry: later ones, if there were any, are lost
	Term     uint64
}

// StrongAdmin is what operators do with strong keyspaces. A Cluster implements it.
type StrongAdmin interface {
	// CreateKeyspace creates a keyspace, from any node. ErrConflict if there is one of that
	// name and another mode; creating the same one again is no error.
	CreateKeyspace(ctx context.Context, spec KeyspaceSpec) error
	// RemoveKeyspace removes a keyspace of either mode, for good.
	RemoveKeyspace(ctx context.Context, name string) error
	// StrongInfo describes the group of a strong keyspace; "_system" is the catalog's.
	StrongInfo(ctx context.Context, name string) (StrongInfo, error)
	// AddVoter and RemoveVoter change who votes, by the names of servers. Both return when
	// the change is complete, or with ErrTimeout when it goes on.
	AddVoter(ctx context.Context, keyspace, server string) error
	RemoveVoter(ctx context.Context, keyspace, server string) error
	// Decommission moves all replicas away from a server.
	Decommission(ctx context.Context, server string) error
	// RecoverKeyspace begins a group anew with the replica of one server, after the
	// majority of its voters was lost for good. What only they had is lost. ErrConflict if
	// a majority is alive.
	RecoverKeyspace(ctx context.Context, name, survivor string) (RecoveryReport, error)
}
