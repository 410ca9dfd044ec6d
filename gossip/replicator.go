package gossip

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
)

// Errors of a Replicator. Nothing was changed when one is returned by a write.
var (
	// ErrRenew: a dot of our own Inc was met that was not issued here, or our
	// Inc was closed. Call Renew with a new one, and write again.
	ErrRenew = errors.New("the writing incarnation must be renewed")
	// ErrBroken: an earlier frame of the link was malformed. Close the link.
	ErrBroken = errors.New("link is broken")
)

// A Replicator is one keyspace at one node. It performs no I/O, starts no
// goroutine and reads no clock. Not safe for concurrent use: the owner
// serialises every call, reads of Replica included, except as the Cells in use
// allow.
//
// The owner's duties after Put, Delete, Remove, CloseInc, Step and Tick:
//
//	consume Changes as one transaction, and Reset it;
//	wake the writers of TakeWakes, each of which calls NextFrame until it says false;
//	after Step: on an error close the link (and call LinkDown);
//	            if Lost, mint a new Inc and Renew before the next write;
//	after Tick: if Damaged, and there is a peer, discard it and begin anew.
type Replicator struct {
	cfg     Config
	replica *crdt.Replica
	data    *reconcile.Trie
	clock   clockSum
	ring    ring
	strata  strata

	tree   tree
	choked bool // peers are to send no ops
	mirror mirror

	links map[PeerID]*link
	order []*link // the same, ascending by peer
	wakes []PeerID
	wants []want

	enc *crdt.Encoder
	dec *crdt.Decoder

	nowNs  int64 // for timers: never runs backwards, nor stands still for a clock that was put back
	wallNs int64 // the clock
	lost   bool
	maxHLC crdt.HLC
	// unspent is the change of what waits that the budget was not told of yet.
	unspent   int
	fuse      fuse
	scrub     scrub
	damaged   bool
	askedTill int64 // an empty replica waits so long for a sponsor that was asked
	stats     Stats

	lags     lags
	acks     acks
	agreed   bool  // this replica was once equal to another, or made so
	issuedAt int64 // the newest op of ours
	beaconAt int64 // when the next beacon is due, or 0

	// How much of replica.Changes has been taken over into data and sessions.
	added, removed, clocked int
}

// New is the replicator that continues from state, whose cells are iterated
// once. state.Clock nil is an empty clock.
func New(cfg Config, state crdt.State, cells iter.Seq[*crdt.Cell]) *Replicator {
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Pace == nil {
		cfg.Pace = NewSessionPace(cfg.Limits)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.New(rand.NewPCG(cfg.Seed, 1))
	}
	if state.Clock == nil {
		state.Clock = crdt.NewClock()
	}
	r := &Replicator{
		cfg:     cfg,
		replica: crdt.NewReplica(state),
		data:    reconcile.NewTrie(cfg.Seed),
		clock:   newClockSum(cfg.Seed, state.Clock),
		links:   make(map[PeerID]*link),
		enc:     crdt.NewEncoder(),
		dec:     crdt.NewDecoder(),
	}
	r.tree = newTree(cfg.Limits.Origins)
	r.mirror.origin = cfg.Origin
	r.ring = ring{maxOps: cfg.Limits.RingOps, maxBytes: cfg.Limits.RingBytes, maxAge: cfg.Limits.RingAge}
	if cells != nil {
		for c := range cells {
			r.data.Insert(c)
		}
	}
	r.checkOwn()
	return r
}

// Replica is the replica, for reading.
func (r *Replicator) Replica() *crdt.Replica { return r.replica }

// Changes is what happened to the replica since the owner last called Reset on
// it. Everything in it belongs into one transaction.
func (r *Replicator) Changes() *crdt.Changes { return r.replica.Changes() }

// Root is the sums of the live cells and of the clock. Replicas with equal
// roots hold the same.
func (r *Replicator) Root() (data, clock reconcile.Sum) {
	root := r.root()
	return root.Data, root.Clock
}

// MaxHLC is the newest HLC in the ops and cells received, less those that were
// further ahead of the local clock than MaxClockDrift: the local clock may
// follow it without being dragged along (F14).
func (r *Replicator) MaxHLC() crdt.HLC { return r.maxHLC }

// Lost reports whether writes are refused with ErrRenew until Renew is called.
func (r *Replicator) Lost() bool { return r.lost }

// Renew makes inc, which must be new, the incarnation that mints dots.
func (r *Replicator) Renew(inc crdt.Inc) {
	r.replica.Renew(inc)
	r.lost = false
	r.checkOwn()
	for _, l := range r.order {
		l.helloDue = true
	}
}

// Put writes a cell and queues its op on every link. It returns the cell's dot.
// Errors are those of crdt.Replica.Put, and ErrRenew.
func (r *Replicator) Put(now time.Time, w crdt.Write) (crdt.Dot, error) {
	if r.lost {
		return crdt.Dot{}, ErrRenew
	}
	r.begin(now)
	before := r.data.Root()
	ops, err := r.replica.Put(w)
	if err != nil {
		return crdt.Dot{}, err
	}
	r.settle()
	r.noteOps(before, ops...)
	r.issue(ops)
	return ops[len(ops)-1].Dot, nil
}

// Update makes the changes of a batch and queues its op on every link: edit makes them on a draft, and nothing happened
// if it fails. It returns the dot of the op, if there were changes. Errors are those of edit, and ErrRenew.
func (r *Replicator) Update(now time.Time, at crdt.HLC, sees func(*crdt.Cell) bool, edit func(*crdt.Draft) error) (dot crdt.Dot, changed bool, err error) {
	if r.lost {
		return crdt.Dot{}, false, ErrRenew
	}
	d := r.replica.Draft(at, sees)
	if err := edit(d); err != nil {
		return crdt.Dot{}, false, err
	}
	r.begin(now)
	before := r.data.Root()
	ops := r.replica.Commit(d)
	r.settle()
	r.noteOps(before, ops...)
	r.issue(ops)
	if len(ops) == 0 {
		return crdt.Dot{}, false, nil
	}
	return ops[0].Dot, true, nil
}

// Delete removes every cell of key that is held here. It returns the dot of the
// last op, and whether there was a cell. The error is ErrRenew or nil.
func (r *Replicator) Delete(now time.Time, key string, at crdt.HLC) (d crdt.Dot, deleted bool, err error) {
	if r.lost {
		return crdt.Dot{}, false, ErrRenew
	}
	r.begin(now)
	sum := r.data.Root()
	ops := r.replica.Delete(key, at)
	r.settle()
	r.noteOps(sum, ops...)
	r.issue(ops)
	if len(ops) == 0 {
		return crdt.Dot{}, false, nil
	}
	return ops[len(ops)-1].Dot, true, nil
}

// Remove removes the live cells among dots, of whatever key: how expired and
// closed cells are collected. It returns how many were live. The error is
// ErrRenew or nil.
func (r *Replicator) Remove(now time.Time, dots []crdt.Dot, at crdt.HLC) (removed int, err error) {
	if r.lost {
		return 0, ErrRenew
	}
	r.begin(now)
	before := r.replica.Cells().Len()
	sum := r.data.Root()
	ops := r.replica.Remove(dots, at)
	removed = before - r.replica.Cells().Len()
	r.settle()
	r.noteOps(sum, ops...)
	r.issue(ops)
	return removed, nil
}

// CloseInc records that inc writes no more, and reports whether that was new.
// It spreads with the clock, by sessions.
func (r *Replicator) CloseInc(inc crdt.Inc) (changed bool) {
	r.mark()
	changed = r.replica.Close(inc)
	r.settle()
	if inc == r.replica.Inc() {
		r.lost = true
	}
	return changed
}

// issue spreads ops that were minted here.
func (r *Replicator) issue(ops []*crdt.Op) {
	r.stats.OpsIssued += int64(len(ops))
	if len(ops) > 0 {
		r.issuedAt = r.nowNs
	}
	if len(r.order) == 0 {
		return
	}
	for _, op := range ops {
		r.spread(nil, op)
	}
	for _, l := range r.order {
		if !l.awake && r.ready(l) { // something else than ops
			r.wake(l)
		}
	}
}

// wake reports l to the owner, unless its writer is awake.
func (r *Replicator) wake(l *link) {
	if !l.awake {
		l.awake = true
		r.wakes = append(r.wakes, l.peer)
	}
}

// TakeWakes is the peers whose links have something to send and whose writers
// may sleep. A peer that was reported is not reported again before NextFrame
// has said false for it, except by Tick. The slice is valid until the next call
// of any method.
func (r *Replicator) TakeWakes() []PeerID {
	out := r.wakes
	r.wakes = r.wakes[:0]
	return out
}

// LinkUp begins a link to peer. Frames from it go to Step, and NextFrame gives
// those for it, both in order. A link that is up already is taken down first.
func (r *Replicator) LinkUp(now time.Time, peer PeerID, role Role) {
	r.LinkDown(peer)
	r.begin(now)
	l := &link{
		peer: peer, role: role, begin: r.cfg.Self < peer, mine: r.cfg.Rand.Uint64(), frame: defaultFrame,
		helloDue: true, summaryDue: true, since: r.nowNs, chokeDue: r.choked,
	}
	r.tree.join(l)
	i, _ := slices.BinarySearchFunc(r.order, peer, func(l *link, p PeerID) int { return comparePeers(l.peer, p) })
	r.order = slices.Insert(r.order, i, l)
	r.links[peer] = l
	r.ackLinkNew(l)
	r.wake(l)
}

// LinkDown ends the link to peer. What was queued for it is dropped, and its
// session with it.
func (r *Replicator) LinkDown(peer PeerID) {
	l := r.links[peer]
	if l == nil {
		return
	}
	r.stats.LinksLost++
	r.stats.OpsCoalesced += l.queue.merge + l.large.merge
	l.queue.reset()
	l.large.reset()
	r.weigh(l)
	if l.session != nil {
		r.stats.SessionsLost++
		r.detach(l)
	}
	delete(r.links, peer)
	r.order = slices.DeleteFunc(r.order, func(x *link) bool { return x == l })
	r.wants = slices.DeleteFunc(r.wants, func(w want) bool { return w.link == l })
	r.tree.leave(l)
	r.ackLinkDown(l)
	r.hurryWants()
	r.spend()
	if len(r.order) == 0 {
		r.ring.reset()
	}
}

// SetRole changes the role of the link to peer, if there is one.
func (r *Replicator) SetRole(peer PeerID, role Role) {
	l := r.links[peer]
	if l == nil || l.role == role {
		return
	}
	l.role, l.since = role, r.nowNs
	r.tree.unmark(l) // both sides learn anew
	r.hurryWants()
	if role == RoleQuiet {
		l.haveDue = len(l.have) > 0 // the last ones: who waits for them asks
		l.behindDue = true          // or the peer would wait for pushes
		r.wake(l)
	}
}

// SetRTT tells the round trip time of the link to peer.
func (r *Replicator) SetRTT(peer PeerID, rtt time.Duration) {
	if l := r.links[peer]; l != nil {
		l.rtt = rtt
	}
}

// Tick does what is due: it must be called at least every 50 ms while there are
// links.
func (r *Replicator) Tick(now time.Time) {
	r.begin(now)
	r.ring.expire(r.nowNs)
	r.graftDue()
	for _, l := range r.order {
		if len(l.have) > 0 && r.nowNs-l.haveAt >= r.announceEvery(l) {
			l.haveDue = true
		}
	}
	r.spend()
	r.tickSessions()
	r.startSessions()
	r.summaries()
	r.tickBeacon()
	r.tickAcks()
	r.tickScrub()
	for _, l := range r.order {
		if r.ready(l) {
			l.awake = false
			r.wake(l)
		}
	}
}

// Step takes one frame that peer sent. An error that wraps crdt.ErrCodec means
// that the frame was malformed: the messages before the bad one took effect,
// nothing more is taken from or given to the link, and it is to be closed.
func (r *Replicator) Step(now time.Time, peer PeerID, frame []byte) error {
	r.begin(now)
	l := r.links[peer]
	switch {
	case l == nil:
		r.stats.DropNoLink++
		return nil
	case l.broken:
		r.stats.DropBrokenLink++
		return fmt.Errorf("peer %s: %w", peer, ErrBroken)
	}
	r.stats.FramesReceived++
	r.stats.BytesReceived += int64(len(frame))
	r.dec.Reset(frame)
	for r.dec.Len() > 0 {
		if err := r.message(l); err != nil {
			l.broken = true
			r.closeSession(l)
			r.stats.DropMalformed++
			r.settle()
			return fmt.Errorf("frame from %s: %w", peer, err)
		}
	}
	r.graftDue()
	r.startSessions()
	for _, l := range r.order {
		if !l.awake && r.ready(l) {
			r.wake(l)
		}
	}
	return nil
}

// Ready reports whether NextFrame would give a frame for peer.
func (r *Replicator) Ready(peer PeerID) bool {
	l := r.links[peer]
	return l != nil && r.ready(l)
}

// Reconciling reports whether a session with peer is under way.
func (r *Replicator) Reconciling(peer PeerID) bool {
	l := r.links[peer]
	return l != nil && l.session != nil
}

// begin starts a call at time now, which never runs backwards here.
func (r *Replicator) begin(now time.Time) {
	switch wall := now.UnixNano(); {
	case r.wallNs == 0:
		r.nowNs, r.wallNs = wall, wall
	case wall > r.wallNs:
		r.nowNs += wall - r.wallNs
		r.wallNs = wall
	case r.wallNs-wall > int64(time.Second): // put back, not only callers that overtook one another
		r.wallNs = wall
	}
	r.mark()
}

// mark takes note of where the changes of this call begin.
func (r *Replicator) mark() {
	ch := r.replica.Changes()
	r.added, r.removed, r.clocked = len(ch.Added), len(ch.Removed), len(ch.Clock)
}

// settle takes what changed in the replica over into the tries and sessions.
// Within one settle no dot is removed and then added, so all additions may go
// first. Most are overwrites, in which the next removal makes room for the
// addition.
func (r *Replicator) settle() {
	ch := r.replica.Changes()
	removed := ch.Removed[r.removed:]
	for _, c := range ch.Added[r.added:] {
		if len(removed) > 0 && r.data.Replace(removed[0], c) {
			removed = removed[1:]
		} else {
			r.data.Insert(c)
		}
	}
	for _, c := range removed {
		r.data.Remove(c)
	}
	for _, inc := range ch.Clock[r.clocked:] {
		r.clock.touch(inc)
	}
	r.ackSettled(ch.Clock[r.clocked:])
	if len(ch.Added) > r.added {
		r.mirror.noteArrived(ch.Added[r.added:])
		for _, l := range r.order {
			if l.session != nil {
				l.session.add(ch.Added[r.added:])
			}
		}
	}
	r.mark()
}

func comparePeers(a, b PeerID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
