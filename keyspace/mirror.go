package keyspace

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/bridge"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

// A mirror is the copy of a strong keyspace at one node: a Keyspace in which only the
// group's origin writes, which is no member (package bridge). It is read and watched
// like any other, found equal to others by the same summaries and sessions, and written
// by nobody here: the voters of the group feed theirs from their state machines, and
// gossip brings it to the rest. It is always the state of some moment or more: complete
// up to MirrorPosition, with single changes beyond it where ops overtook others, and an
// older value of a key never follows a newer one.
//
// What depends on members does not concern it: the origin is never closed, sealed or
// retired, nothing in it expires or is bound to an owner, and no birth horizon rises in it.

// MirrorSuffix ends the names of mirrors. No other keyspace has it in its name.
const MirrorSuffix = "~strong"

// feedCells is how many cells of a state are taken in one hold of the mutex.
const feedCells = 256

// MirrorName is the name of the mirror of a strong keyspace.
func MirrorName(strong string) string { return strong + MirrorSuffix }

// MirrorGeneration numbers the mirrors of one name: of the gen-th keyspace of that name
// in an epoch. Both are far from their bounds, of 2^32, after which it fails.
func MirrorGeneration(gen, epoch uint64) (uint64, error) {
	if gen>>32 != 0 || epoch>>32 != 0 {
		return 0, fmt.Errorf("%w: generation %d in epoch %d is not to be mirrored", client.ErrTooLarge, gen, epoch)
	}
	return gen<<32 | epoch, nil
}

// OpenMirror is Open for the mirror of a strong keyspace whose ops are of origin. The id
// must be another one for another origin, for all nodes alike: MirrorName, followed by
// a '#' and MirrorGeneration. The error matches ErrBadRequest if the store
// held something else under that id.
func OpenMirror(id string, origin crdt.Inc, env *Env, st storage.KeyspaceState, now time.Time) (*Keyspace, error) {
	if origin == 0 {
		return nil, fmt.Errorf("%w: mirror %s without an origin", client.ErrBadRequest, id)
	}
	if st.Clock != nil {
		for _, inc := range st.Clock.Incs() {
			if inc != origin {
				return nil, fmt.Errorf("%w: keyspace %s on disk is no mirror of origin %s", client.ErrBadRequest, id, origin)
			}
		}
	}
	return open(id, origin, env, st, now), nil
}

// Origin is that of the mirror, or 0 if the keyspace is none.
func (k *Keyspace) Origin() crdt.Inc { return k.origin }

// strongName is the strong keyspace of which this is a mirror.
func (k *Keyspace) strongName() string { return strings.TrimSuffix(k.name, MirrorSuffix) }

// checkWritable refuses writes of users to a mirror.
func (k *Keyspace) checkWritable() error {
	if k.origin != 0 {
		return fmt.Errorf("%w: %s is the local copy of a strong keyspace: write through %s", client.ErrDenied, k.name, k.strongName())
	}
	return nil
}

// strongVersion is the version of an entry of a strong keyspace: the revision of its
// last change. One that cannot be read has none.
func strongVersion(c *crdt.Cell) client.Version {
	e, err := bridge.Entry(c)
	if err != nil {
		return client.Version{}
	}
	return client.Version{Seq: uint64(e.Mod)}
}

// Feed gives a mirror ops of its origin, made of the changes that this node's state
// machine has applied: bridge.Ops. They spread from here, and what is known is ignored, so
// every voter feeds, whoever leads. It does not block. The ops are not taken, and a
// state is to be fed later (FeedState), on client.ErrOverloaded: the disk is too slow;
// on client.ErrUnavailable the keyspace is not held any more.
func (k *Keyspace) Feed(now time.Time, ops []*crdt.Op) error {
	if k.env.Writer != nil && k.env.Writer.Overloaded() {
		return fmt.Errorf("%w: the disk is too slow for the changes of %s", client.ErrOverloaded, k.strongName())
	}
	return k.feed(now, func() error { return k.rep.Feed(now, ops) })
}

// feed runs one call of the replicator that feeds it.
func (k *Keyspace) feed(now time.Time, call func() error) error {
	err := fmt.Errorf("%w: this node no longer holds keyspace %s", client.ErrUnavailable, k.name)
	k.drive(now, func() { err = call() })
	return err
}

// A MirrorState is the state of a strong keyspace after its change Seq. It does not change,
// and may be read while others do. bridge.State is one.
type MirrorState interface {
	Seq() uint64
	// Cells yields the live cells whose seq is wanted.
	Cells(wanted func(seq uint64) bool) iter.Seq[*crdt.Cell]
	// Holds reports whether c is a live cell.
	Holds(c *crdt.Cell) bool
}

// FeedState makes a mirror what this node's state machine says, as a session with it
// would: for a voter that did not feed all changes up to the present one. What it lacks
// comes page by page, and what the state does not hold goes in one step at the end. What
// the mirror knows beyond the state stays: an older state changes nothing. The cost
// under the mutex follows the difference; the state and the mirror are read as a whole.
//
// One call at a time. On an error, ctx's or one of Feed, the mirror is as good as
// before, and the caller may try again.
func (k *Keyspace) FeedState(ctx context.Context, st MirrorState) error {
	var before gossip.Before
	err := k.feed(time.Now(), func() (err error) {
		before, err = k.rep.BeginState()
		return err
	})
	if err != nil {
		return err
	}
	defer func() { k.drive(time.Now(), k.rep.AbortState) }() // nothing, unless it returns early
	page := make([]*crdt.Cell, 0, feedCells)
	supply := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if w := k.env.Writer; w != nil && w.Overloaded() {
			k.mu.Lock()
			ticket := k.ticket
			k.mu.Unlock()
			if err := w.Wait(ctx, ticket); err != nil {
				return err
			}
		}
		now := time.Now()
		err := k.feed(now, func() error { return k.rep.SupplyState(now, page) })
		page = page[:0]
		return err
	}
	for c := range st.Cells(func(seq uint64) bool { return !before.Knows(seq) }) {
		if page = append(page, c); len(page) == feedCells {
			if err := supply(); err != nil {
				return err
			}
		}
	}
	if err := supply(); err != nil {
		return err
	}
	seq := st.Seq()
	dead := before.Dead(seq, st.Holds)
	now := time.Now()
	return k.feed(now, func() error {
		err := k.rep.EndState(now, seq, dead, st.Holds)
		k.met = k.met || err == nil
		return err
	})
}

// StopFeeding says that this node feeds the mirror no more: it is a voter no longer.
func (k *Keyspace) StopFeeding(now time.Time) {
	k.drive(now, func() { k.rep.StopFeeding() })
}

// Announce tells the other holders of a mirror how far the strong keyspace is: its last
// change and its revision. The node whose replica leads calls it every second or more often,
// also while nothing changes: the others know the age of their copies by it.
func (k *Keyspace) Announce(now time.Time, seq, revision uint64) {
	k.drive(now, func() { k.rep.Announce(now, seq, revision) })
}

// A MirrorPosition says how old a mirror is.
type MirrorPosition struct {
	// Seq: the changes of the strong keyspace up to this one are all here.
	Seq uint64
	// Behind is how many more are known to exist.
	Behind uint64
	// Revision is one that this copy has reached. 0: not known yet.
	Revision uint64
	// AsOf is the time of which this copy has everything, by the clock of the leader then.
	// Zero: not known yet.
	AsOf time.Time
}

// MirrorPosition is how far this mirror is. Zero if the keyspace is none.
func (k *Keyspace) MirrorPosition() MirrorPosition {
	k.mu.Lock()
	p := k.rep.MirrorPosition()
	k.mu.Unlock()
	out := MirrorPosition{Seq: p.Seq, Behind: p.Newest - p.Seq, Revision: p.Reached.Revision}
	if p.Reached.At != 0 {
		out.AsOf = time.UnixMilli(p.Reached.At.WallMs())
	}
	return out
}
