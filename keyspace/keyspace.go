package keyspace

import (
	"context"
	"errors"
	"fmt"
	"iter"
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
	Sync   bool // every local write waits for the disk
	Logger *slog.Logger
}

// A Keyspace is one eventual keyspace at one node. It implements
// client.Keyspace. Safe for concurrent use.
type Keyspace struct {
	name  string
	env   *Env
	index *index

	mu      sync.Mutex // protects the fields below
	rep     *gossip.Replicator
	life    *lifetimes
	log     changeLog
	dark    map[string]struct{} // keys that have cells and show none
	changed chan struct{}       // closed at the next change; nil if nobody waits
	sweepAt time.Time
	ticket  storage.Ticket // of the newest change
	met     bool           // once found equal to a peer
	done    bool

	watchers atomic.Int64
	issued   atomic.Uint64
}

// Open resumes a keyspace from what the store held; a zero state is an empty
// one. The state is taken over.
func Open(name string, env *Env, st storage.KeyspaceState, now time.Time) *Keyspace {
	k := &Keyspace{
		name:  name,
		env:   env,
		index: newIndex(),
		life:  newLifetimes(),
		dark:  make(map[string]struct{}),
	}
	clock := st.Clock
	if clock == nil {
		clock = crdt.NewClock()
	}
	nowMs := now.UnixMilli()
	for _, c := range st.Cells {
		k.index.Add(c)
		k.life.add(c, nowMs, env.Owners.Get(c.Dot.Inc).State)
	}
	for d := range k.life.hidden {
		k.restate(k.index.ByDot(d).Key)
	}
	k.rep = gossip.New(gossip.Config{
		Keyspace: name,
		Self:     env.Self,
		Seed:     xxhash.Sum64String(name),
		Rand:     rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}, crdt.State{
		Inc: env.Inc, Cells: k.index, Clock: clock, Pending: st.Pending,
	}, slices.Values(st.Cells))
	return k
}

// Name implements client.Keyspace.
func (k *Keyspace) Name() string { return k.name }

func checkKey(key string) error {
	if len(key) == 0 || len(key) > crdt.MaxKeyBytes {
		return fmt.Errorf("%w: a key has 1 to %d bytes, this one has %d", client.ErrBadRequest, crdt.MaxKeyBytes, len(key))
	}
	return nil
}

// Get implements client.Keyspace. It takes no lock and allocates nothing,
// unless siblings or a token are asked for.
func (k *Keyspace) Get(ctx context.Context, key string, o *client.GetOptions) (client.Entry, error) {
	if len(key) == 0 || len(key) > crdt.MaxKeyBytes {
		return client.Entry{}, checkKey(key)
	}
	if o != nil {
		if o.Linearizable {
			return client.Entry{}, fmt.Errorf("%w: %s is eventual and has no linearizable reads", client.ErrNeedsStrong, k.name)
		}
		if o.After != "" {
			if err := k.waitFor(ctx, o.After); err != nil {
				return client.Entry{}, err
			}
		}
		if o.Siblings {
			return k.getSiblings(key)
		}
	}
	c := k.index.top(key)
	if c == nil {
		return client.Entry{}, client.ErrNotFound
	}
	if !lives(c) && !k.visible(c, time.Now().UnixMilli()) {
		if c = k.visibleSibling(key); c == nil {
			return client.Entry{}, client.ErrNotFound
		}
	}
	return k.entry(c), nil
}

// visible decides by the clock and the owner's state at this moment.
func (k *Keyspace) visible(c *crdt.Cell, nowMs int64) bool {
	if lives(c) {
		return true
	}
	owner := crdt.OwnerAlive
	if c.Ephemeral() {
		owner = k.env.Owners.Get(c.Dot.Inc).State
	}
	return crdt.Visible(c, nowMs, owner) == crdt.Shown
}

func (k *Keyspace) visibleSibling(key string) *crdt.Cell {
	now := time.Now().UnixMilli()
	for _, c := range k.index.all(key) {
		if k.visible(c, now) {
			return c
		}
	}
	return nil
}

func (k *Keyspace) getSiblings(key string) (client.Entry, error) {
	now := time.Now().UnixMilli()
	cells := slices.DeleteFunc(k.index.all(key), func(c *crdt.Cell) bool { return !k.visible(c, now) })
	if len(cells) == 0 {
		return client.Entry{}, client.ErrNotFound
	}
	e := k.entry(cells[0])
	for _, c := range cells[1:] {
		s := k.entry(c)
		e.Siblings = append(e.Siblings, client.Sibling{Value: s.Value, Version: s.Version, Origin: s.Origin, Modified: s.Modified})
	}
	return e, nil
}

// entry is a cell as users see it.
func (k *Keyspace) entry(c *crdt.Cell) client.Entry {
	e := client.Entry{
		Key:       c.Key,
		Value:     c.Value,
		Version:   client.Version{Inc: uint64(c.Dot.Inc), Seq: c.Dot.Seq},
		Origin:    k.env.Owners.Name(c.Dot.Inc),
		Modified:  time.UnixMilli(c.HLC.WallMs()),
		Ephemeral: c.Ephemeral(),
	}
	if c.Expires != 0 {
		e.Expires = time.UnixMilli(c.Expires)
	}
	return e
}

// waitFor blocks until the write named by the token is known here.
func (k *Keyspace) waitFor(ctx context.Context, token client.Token) error {
	v, err := client.ParseVersion(string(token))
	if err != nil || v.Inc == 0 {
		return fmt.Errorf("%w: token %q is not one that this keyspace gave", client.ErrBadRequest, token)
	}
	d := crdt.Dot{Inc: crdt.Inc(v.Inc), Seq: v.Seq}
	for {
		k.mu.Lock()
		if k.done {
			k.mu.Unlock()
			return client.ErrDraining
		}
		if k.rep.Replica().Clock().Contains(d) {
			k.mu.Unlock()
			return nil
		}
		changed := k.awaitChange()
		k.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: waited for %s", client.ErrNotCaughtUp, token)
		}
	}
}

// Put implements client.Keyspace.
func (k *Keyspace) Put(ctx context.Context, key string, value []byte, o *client.PutOptions) (client.Version, error) {
	var opts client.PutOptions
	if o != nil {
		opts = *o
	}
	w := crdt.Write{Key: key, Kind: crdt.KindRegister}
	switch {
	case opts.IfAbsent || !opts.IfVersion.IsZero():
		return client.Version{}, fmt.Errorf("%w: %s is eventual and cannot decide a condition for all nodes", client.ErrNeedsStrong, k.name)
	case opts.TTL < 0:
		return client.Version{}, fmt.Errorf("%w: a time to live cannot be negative, this one is %s", client.ErrBadRequest, opts.TTL)
	case len(value) > MaxValueBytes:
		return client.Version{}, fmt.Errorf("%w: a value has at most %d bytes, this one has %d", client.ErrTooLarge, MaxValueBytes, len(value))
	}
	if err := checkKey(key); err != nil {
		return client.Version{}, err
	}
	if err := k.admit(ctx); err != nil {
		return client.Version{}, err
	}
	w.Value = slices.Clone(value)
	if opts.Ephemeral {
		w.Flags |= crdt.FlagEphemeral
	}
	now := time.Now()
	if opts.TTL > 0 {
		w.Expires = max(now.Add(opts.TTL).UnixMilli(), 1)
	}
	var dot crdt.Dot
	err := k.write(ctx, now, opts.Durable, func(h crdt.HLC) (err error) {
		w.HLC = h
		dot, err = k.rep.Put(now, w)
		return err
	})
	return client.Version{Inc: uint64(dot.Inc), Seq: dot.Seq}, err
}

// Delete implements client.Keyspace.
func (k *Keyspace) Delete(ctx context.Context, key string, o *client.DeleteOptions) (client.Deletion, error) {
	if err := checkKey(key); err != nil {
		return client.Deletion{}, err
	}
	now := time.Now()
	var out client.Deletion
	err := k.write(ctx, now, o != nil && o.Durable, func(h crdt.HLC) error {
		shown := k.shownOf(key) != nil
		dot, ok, err := k.rep.Delete(now, key, h)
		if ok {
			// What was only hidden goes too, and is not reported as deleted.
			out = client.Deletion{Deleted: shown, Version: client.Version{Inc: uint64(dot.Inc), Seq: dot.Seq}}
		}
		return err
	})
	return out, err
}

// admit refuses growth while too much waits for the disk. It is the only limit
// here that a Put can meet; a Put never waits for a peer.
func (k *Keyspace) admit(ctx context.Context) error {
	if k.env.Writer == nil {
		return nil
	}
	if k.env.Writer.Overloaded() {
		return fmt.Errorf("%w: the disk is too slow for the writes", client.ErrOverloaded)
	}
	if h := crdt.HLCAt(time.Now().UnixMilli()); h > k.env.Clock.Bound() {
		// The wall clock jumped ahead of what was promised to the disk.
		return k.env.Clock.Extend(ctx, k.env.Writer)
	}
	return nil
}

// write runs one local change under the mutex and then, if asked, waits until
// it is on disk.
func (k *Keyspace) write(ctx context.Context, now time.Time, durable bool, change func(crdt.HLC) error) error {
	k.mu.Lock()
	if k.done {
		k.mu.Unlock()
		return client.ErrDraining
	}
	err := change(k.env.Clock.Now(now))
	after := k.settle(now)
	k.mu.Unlock()
	k.finish(after)
	if errors.Is(err, gossip.ErrRenew) {
		return fmt.Errorf("%w: this node was taken for gone and its incarnation closed: restart it", client.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", client.ErrBadRequest, err)
	}
	if after.err != nil {
		return fmt.Errorf("persist: %w", after.err)
	}
	k.issued.Add(1)
	if (durable || k.env.Sync) && k.env.Writer != nil {
		if err := k.env.Writer.Wait(ctx, after.ticket); err != nil {
			// It is in memory and spreading; only the disk is in doubt.
			return fmt.Errorf("%w: not known to be on disk: %w", client.ErrUnknownOutcome, err)
		}
	}
	return nil
}

// aftermath is what is left to do when the mutex is free again.
type aftermath struct {
	ticket storage.Ticket
	closed []crdt.Inc
	err    error
}

// settle hands what the replicator changed to the store, the lifetimes and the
// change log. It is called after every call that may change the replica, with
// k.mu held.
func (k *Keyspace) settle(now time.Time) (after aftermath) {
	ch := k.rep.Changes()
	if !ch.Empty() {
		clock := k.rep.Replica().Clock()
		if k.env.Writer != nil {
			after.ticket, after.err = k.env.Writer.Append(k.name, ch, clock)
			k.ticket = after.ticket
		}
		for _, inc := range ch.Clock {
			if inc != k.env.Inc && clock.Entry(inc).Closed {
				after.closed = append(after.closed, inc)
			}
		}
		k.publish(ch, now.UnixMilli())
		ch.Reset()
		k.signal()
	}
	for _, p := range k.rep.TakeWakes() { // valid only until the next call of rep
		k.env.Waker.Wake(k.name, p)
	}
	return after
}

func (k *Keyspace) finish(after aftermath) {
	if len(after.closed) > 0 {
		k.env.Closed(after.closed)
	}
}

// publish tells the change log what the keys show now.
func (k *Keyspace) publish(ch *crdt.Changes, nowMs int64) {
	if len(ch.Added) == 1 && len(ch.Removed) <= 1 {
		if added := ch.Added[0]; len(ch.Removed) == 0 || ch.Removed[0].Key == added.Key && ch.Removed[0] != added {
			if len(k.index.others(added.Key)) == 0 {
				var before *crdt.Cell
				if len(ch.Removed) == 1 {
					if k.life.shown(ch.Removed[0]) {
						before = ch.Removed[0]
					}
					k.life.remove(ch.Removed[0])
				}
				k.life.add(added, nowMs, k.ownerOf(added))
				k.restated(added.Key, before)
				return
			}
		}
	}
	before := make(map[string]*crdt.Cell)
	added := make(map[crdt.Dot]struct{}, len(ch.Added))
	keys := make([]string, 0, len(ch.Added)+len(ch.Removed))
	for _, c := range ch.Added {
		added[c.Dot] = struct{}{}
		keys = append(keys, c.Key)
	}
	for _, c := range ch.Removed {
		keys = append(keys, c.Key)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	was := func(c *crdt.Cell) {
		if _, isNew := added[c.Dot]; !isNew && k.life.shown(c) && (before[c.Key] == nil || c.Compare(before[c.Key]) > 0) {
			before[c.Key] = c
		}
	}
	for _, key := range keys {
		for _, c := range k.index.all(key) {
			was(c)
		}
	}
	for _, c := range ch.Removed {
		was(c)
	}
	for _, c := range ch.Added {
		k.life.add(c, nowMs, k.ownerOf(c))
	}
	for _, c := range ch.Removed {
		k.life.remove(c)
	}
	for _, key := range keys {
		k.restated(key, before[key])
	}
}

func (k *Keyspace) ownerOf(c *crdt.Cell) crdt.OwnerState {
	if !c.Ephemeral() {
		return crdt.OwnerAlive
	}
	if k.rep.Replica().Clock().Entry(c.Dot.Inc).Closed {
		return crdt.OwnerClosed
	}
	return k.env.Owners.Get(c.Dot.Inc).State
}

// shownOf is what watches are told that key shows, or nil.
func (k *Keyspace) shownOf(key string) *crdt.Cell {
	top := k.index.top(key)
	if top == nil || k.life.shown(top) {
		return top
	}
	for _, c := range k.index.all(key) {
		if k.life.shown(c) {
			return c
		}
	}
	return nil
}

// restate updates whether key counts as dark.
func (k *Keyspace) restate(key string) (shown *crdt.Cell) {
	shown = k.shownOf(key)
	if shown == nil && k.index.top(key) != nil {
		k.dark[key] = struct{}{}
	} else if len(k.dark) > 0 {
		delete(k.dark, key)
	}
	return shown
}

// restated appends what key shows now to the change log, unless it is what it
// showed before.
func (k *Keyspace) restated(key string, before *crdt.Cell) {
	next := k.restate(key)
	if before == nil && next == nil || before != nil && next != nil && before.Dot == next.Dot {
		return
	}
	c := change{key: key, prev: before, next: next}
	if next == nil {
		if top := k.index.top(key); top != nil {
			c.why = k.life.hidden[top.Dot]
		}
	}
	k.log.append(c)
}

// signal wakes whoever waits for a change.
func (k *Keyspace) signal() {
	if k.changed != nil {
		close(k.changed)
		k.changed = nil
	}
}

// awaitChange is closed at the next change. Called with k.mu held.
func (k *Keyspace) awaitChange() <-chan struct{} {
	if k.changed == nil {
		k.changed = make(chan struct{})
	}
	return k.changed
}

// List implements client.Keyspace.
func (k *Keyspace) List(ctx context.Context, prefix string, o *client.ListOptions) iter.Seq2[client.Entry, error] {
	var opts client.ListOptions
	if o != nil {
		opts = *o
	}
	return func(yield func(client.Entry, error) bool) {
		if opts.Limit < 0 {
			yield(client.Entry{}, fmt.Errorf("%w: a limit cannot be negative, this one is %d", client.ErrBadRequest, opts.Limit))
			return
		}
		page := make([]*crdt.Cell, 0, pageKeys)
		next, more, n := prefix, true, 0
		if opts.After >= prefix && opts.After != "" {
			next = opts.After + "\x00"
		}
		for more {
			if err := ctx.Err(); err != nil {
				yield(client.Entry{}, err)
				return
			}
			now := time.Now().UnixMilli()
			k.mu.Lock()
			page, next, more = k.page(page[:0], prefix, next, func(key string) *crdt.Cell {
				if c := k.index.top(key); lives(c) || k.visible(c, now) {
					return c
				}
				return k.visibleSibling(key)
			})
			k.mu.Unlock()
			for _, c := range page {
				e := k.entry(c)
				if opts.KeysOnly {
					e.Value = nil
				}
				if !yield(e, nil) {
					return
				}
				if n++; n == opts.Limit {
					return
				}
			}
		}
	}
}

// page appends what the next keys from `from` under prefix show, to cells, and
// says from where to go on, if there is more. Called with k.mu held.
func (k *Keyspace) page(cells []*crdt.Cell, prefix, from string, show func(key string) *crdt.Cell) (_ []*crdt.Cell, next string, more bool) {
	n := 0
	k.index.keys.Ascend(from, func(key string, _ struct{}) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		if n++; n > pageKeys {
			next, more = key, true
			return false
		}
		if c := show(key); c != nil {
			cells = append(cells, c)
		}
		return true
	})
	return cells, next, more
}

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

// chosen reports whether this node collects for closed incarnations: it has the
// lowest hash of (keyspace, name) among the nodes that are alive.
func (k *Keyspace) chosen() bool {
	lowest, best := "", uint64(0)
	for _, name := range k.env.Owners.Alive() {
		if h := xxhash.Sum64String(k.name + "\x00" + name); lowest == "" || h < best {
			lowest, best = name, h
		}
	}
	return lowest == k.env.Name
}
