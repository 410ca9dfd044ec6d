package keyspace

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/gossip/reconcile"
	"github.com/meshkv/meshkv/storage"
)

// Limits of what local calls accept.
const (
	MaxValueBytes = 64 << 10 // the default; the data model's own limit is higher
	pageKeys      = 128      // keys read in one hold of the mutex
)

// Waker is told that there is something to send to a peer. It is called with the
// keyspace's mutex held: it must not block, nor call the keyspace.
type Waker interface {
	Wake(keyspace string, peer gossip.PeerID)
}

// HoldersFunc gives the names of the nodes that are alive and hold a keyspace,
// this one included; empty if that is not known yet. It is called with the
// keyspace's mutex held and must not block.
type HoldersFunc func(keyspace string) []string

// ClosedFunc is told of incarnations that this keyspace's clock says are
// closed. It is called without locks and must not block.
type ClosedFunc func(incs []crdt.Inc)

// Env is what the keyspaces of one node share.
type Env struct {
	Name   string
	Inc    crdt.Inc
	Self   gossip.PeerID
	Clock  *Clock
	Owners *Owners
	Writer *storage.Writer // nil: memory only
	Waker  Waker           // must not block
	Closed ClosedFunc
	// Holders may be nil: then every node that is alive holds every keyspace.
	Holders HoldersFunc
	// Members may be nil: then this node is the only member of every keyspace.
	Members MembersFunc
	// Syncer may be nil: then this node acknowledges nothing as being on disk.
	Syncer *Syncer
	Sync   bool // every local write waits for the disk
	Logger *slog.Logger

	// Doze may be nil. It is told of calls that may bring NextDue forward.
	Doze *Doze

	// Lost may be nil. It is called without locks when a keyspace takes no writes
	// before it is renewed (see Renew), and must not block.
	Lost func()
	// Rejected may be nil. It is told, without locks, of live cells that this node
	// had to drop after a long absence: their incarnation was retired meanwhile, so
	// the members cannot say whether they deleted them or never had them.
	Rejected func(keyspace string, cells []*crdt.Cell)

	left    sequences // of keyspaces that were dropped
	pace    pace      // of all sessions
	renewed renewed
	queues  budget // what waits for peers
}

// A Keyspace is one eventual keyspace at one node. It implements
// client.Keyspace. Safe for concurrent use.
type Keyspace struct {
	name string // as users know it
	id   string // at peers and in the store: the name, and its generation if that is not 0
	// origin is that of the mirror which this is, or 0: see OpenMirror.
	origin crdt.Inc
	env    *Env
	index  *index

	mu          sync.Mutex // protects the fields below
	rep         *gossip.Replicator
	life        *lifetimes
	mine        registry // what this process bound to itself
	settling    settling
	settleAfter time.Duration // see SetSettleAfter
	local       bool          // the running change is a call of this process, not a peer's
	lost        bool          // Lost was called, and Renew was not yet
	log         changeLog     // any goroutine may read it
	nowMs       int64         // of the running change
	openedMs    int64
	hub         *hub
	logID       uint64              // in cursors: tells log from all others, earlier ones of this keyspace included
	dark        map[string]struct{} // keys that have cells and show none
	changed     chan struct{}       // closed at the next change; nil if nobody waits
	sweepAt     time.Time
	ticket      storage.Ticket // of the newest change
	diskFailed  bool           // a change is not, and will not be, on disk
	met         bool           // once found equal to a peer
	survey      crdt.Survey    // if surveyed: nothing has changed since
	surveyed    bool
	done        bool
	dropped     bool // done, and out of the store

	waits    *waits
	rate     bucket                // of puts; protected by mu
	rules    atomic.Pointer[rules] // nil: there are none. Stored with mu held.
	judged   judged
	watchers atomic.Int64
	issued   atomic.Uint64
	rejected atomic.Uint64 // cells, see Env.Rejected
}

// Open resumes a keyspace from what the store held; a zero state is an empty
// one. The state is taken over. The id is the keyspace's name, followed by a '#'
// and its generation where it was removed before.
func Open(id string, env *Env, st storage.KeyspaceState, now time.Time) *Keyspace {
	return open(id, 0, env, st, now)
}

func open(id string, origin crdt.Inc, env *Env, st storage.KeyspaceState, now time.Time) *Keyspace {
	name, _, _ := strings.Cut(id, "#")
	k := &Keyspace{
		name:   name,
		id:     id,
		origin: origin,
		env:    env,
		index:  newIndex(),
		life:   newLifetimes(),
		mine:   newRegistry(),
		dark:   make(map[string]struct{}),
		logID:  rand.Uint64(),
		hub:    newHub(),
		waits:  newWaits(),
	}
	clock := st.Clock
	if clock == nil {
		clock = crdt.NewClock()
	}
	for _, inc := range clock.Incs() {
		if clock.Entry(inc).Closed {
			env.Owners.Set(inc, Owner{Name: env.Owners.Name(inc), State: crdt.OwnerClosed})
		}
	}
	nowMs := now.UnixMilli()
	k.nowMs, k.openedMs = nowMs, nowMs
	for _, c := range st.Cells {
		k.index.Add(c)
		k.life.add(c, nowMs, env.Owners.Get(c.Dot.Inc).State)
	}
	for d := range k.life.hidden {
		k.restate(k.index.ByDot(d).Key)
	}
	k.rep = gossip.New(gossip.Config{
		Keyspace: id,
		Self:     env.Self,
		Seed:     xxhash.Sum64String(id),
		Origin:   origin,
		Budget:   &env.queues,
		Pace:     env.paceOf(id),
		Rand:     rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}, crdt.State{
		Inc: env.Writing(), Seq: env.left.last(id, env.Writing()), Cells: k.index, Clock: clock, Pending: st.Pending,
	}, slices.Values(st.Cells))
	env.Doze.Stir()
	return k
}

// Name implements client.Keyspace.
func (k *Keyspace) Name() string { return k.name }

// ID is the name under which peers and the store know this life of the keyspace.
func (k *Keyspace) ID() string { return k.id }

// Info implements client.Keyspace.
func (k *Keyspace) Info(context.Context) (client.KeyspaceInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, _ := k.rep.Root()
	return client.KeyspaceInfo{
		Name:   k.name,
		Mode:   "eventual",
		Keys:   k.index.keys.Len() - len(k.dark),
		Cells:  k.index.Len(),
		Bytes:  k.index.bytes.Load(),
		Digest: hexSum(data),

		Settings: k.Settings(),
		Invalid:  k.judged.invalid.Load(),
	}, nil
}

// Digest implements client.Keyspace.
func (k *Keyspace) Digest(context.Context) (client.Digest, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, clock := k.rep.Root()
	return client.Digest{Keyspace: k.name, Digest: hexSum(data), Clock: hexSum(clock), Entries: k.index.Len()}, nil
}

// hexSum is a sum as users compare it.
func hexSum(s reconcile.Sum) string { return fmt.Sprintf("%016x%08x", s.Hash, s.Count) }

// Chosen reports whether this node does for this keyspace what only one member
// does.
func (k *Keyspace) Chosen() bool { return k.chosen() }

// chosen reports whether this node collects for closed incarnations: it has the
// lowest hash of (keyspace, name) among the nodes that are alive and hold the
// keyspace.
func (k *Keyspace) chosen() bool {
	var holders []string
	if k.env.Holders != nil {
		holders = k.env.Holders(k.name)
	}
	if len(holders) == 0 {
		holders = k.env.Owners.Alive()
	}
	lowest, best := "", uint64(0)
	for _, name := range holders {
		if h := xxhash.Sum64String(k.name + "\x00" + name); lowest == "" || h < best {
			lowest, best = name, h
		}
	}
	return lowest == k.env.Name
}
