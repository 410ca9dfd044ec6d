package machine

import (
	"strings"

	"github.com/tidwall/btree"

	"github.com/meshkv/meshkv/crdt"
)

// A tree is ordered and copied on write: a copy costs nothing until one of the two
// changes. What is in it is never modified, but replaced.
type tree[T any] = btree.BTreeG[T]

func newTree[T any](less func(a, b T) bool) *tree[T] {
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})
}

// state is all that a keyspace is. Everything that is here, and nothing else, is in
// snapshots and digests, but for what is marked as derived.
type state struct {
	applied   uint64 // index of the last command
	revision  Revision
	compacted Revision // history before it is gone
	seq       Seq
	hlc       crdt.HLC
	token     Token // the last that was given
	quota     uint64
	bytes     uint64 // derived: what counts against the quota
	history   uint64 // derived: the part of bytes that compaction can give back

	live     *tree[*Entry]     // by key
	past     *tree[*Change]    // derived: changes with a Prev, by its key and revision
	log      *tree[*Change]    // by revision, then seq
	leases   *tree[*Lease]     // by id
	attached *tree[attachment] // derived: keys by lease

	locks  *tree[*lock]  // derived: by name
	held   *tree[*claim] // by name, then token
	queued *tree[*claim] // by name, then order
	claims *tree[*claim] // derived: held and queued ones by session, name and request

	pools  *tree[*Pool]       // by name
	blocks *tree[*Allocation] // by pool, then first
	owned  *tree[*Allocation] // derived: those with a session by it, then as before
	free   *tree[gap]         // derived: by pool, then first

	clients   *tree[*client] // by id
	used      *tree[*client] // derived: by last use
	forgotten uint64         // the newest last use of a client that was dropped
	kept      uint64         // derived: bytes of results
	results   int            // derived: how many there are
}

func newState() state {
	return state{
		revision: 1, quota: DefaultQuota,
		live: newTree(func(a, b *Entry) bool { return a.Key < b.Key }),
		past: newTree(byKeyRevision),
		log: newTree(func(a, b *Change) bool {
			return a.Revision < b.Revision || a.Revision == b.Revision && a.Seq < b.Seq
		}),
		leases:   newTree(func(a, b *Lease) bool { return a.ID < b.ID }),
		attached: newTree(attachment.less),
		locks:    newTree(func(a, b *lock) bool { return a.name < b.name }),
		held: newTree(func(a, b *claim) bool {
			c := strings.Compare(a.name, b.name)
			return c < 0 || c == 0 && a.token < b.token
		}),
		queued: newTree(func(a, b *claim) bool {
			c := strings.Compare(a.name, b.name)
			return c < 0 || c == 0 && a.order < b.order
		}),
		claims:  newTree((*claim).less),
		pools:   newTree(func(a, b *Pool) bool { return a.Name < b.Name }),
		blocks:  newTree((*Allocation).less),
		owned:   newTree((*Allocation).lessBySession),
		free:    newTree(gap.less),
		clients: newTree(func(a, b *client) bool { return a.id < b.id }),
		used:    newTree(func(a, b *client) bool { return a.used < b.used }),
	}
}

// copy is a state that shares everything and that changes to s do not reach.
func (s *state) copy() state {
	c := *s
	c.live, c.past, c.log = s.live.Copy(), s.past.Copy(), s.log.Copy()
	c.leases, c.attached = s.leases.Copy(), s.attached.Copy()
	c.locks, c.held, c.queued, c.claims = s.locks.Copy(), s.held.Copy(), s.queued.Copy(), s.claims.Copy()
	c.pools, c.blocks, c.owned, c.free = s.pools.Copy(), s.blocks.Copy(), s.owned.Copy(), s.free.Copy()
	c.clients, c.used = s.clients.Copy(), s.used.Copy()
	return c
}
