package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/bridge"
	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/replica"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/keyspace"
)

// A voter feeds the mirror of a strong keyspace from its own replica, whoever leads: all
// make the same ops of the same log, and what is known is ignored. It follows the history of
// the machine as a watch does, so it has no queue, and applying never waits for it; if it
// falls behind the history, or the disk cannot take more, it begins again with the whole
// state, which costs what has changed since. Nobody feeds, nor holds a mirror beside a
// replica, while no node without a replica holds the mirror: see mirrorWanted.

const (
	// announceEvery is how often the leader tells how far the keyspace is: copies know
	// their age to that.
	announceEvery = 500 * time.Millisecond
	// feedPause is how long a feeder waits after it could not go on.
	feedPause = time.Second
)

// A mirrorSource is what a feeder follows.
type mirrorSource interface {
	View() *machine.View
	// Follow is the state and what tells all changes after it.
	Follow() (*machine.View, mirrorWatch)
	// Leads reports whether this replica speaks for the keyspace.
	Leads() bool
}

// A mirrorWatch tells changes, in order and without gaps; see replica.Watcher.
type mirrorWatch interface {
	Next(ctx context.Context) ([]*machine.Change, error)
	Close()
}

// A replicaSource is the source that a replica is.
type replicaSource struct{ *replica.Replica }

// Follow implements mirrorSource.
func (s replicaSource) Follow() (*machine.View, mirrorWatch) { return s.WatchState("") }

// Leads implements mirrorSource.
func (s replicaSource) Leads() bool {
	now, _ := s.Group().Leadership()
	return now.Leads
}

// A mirrorFeeder feeds one mirror.
type mirrorFeeder struct {
	ks     *keyspace.Keyspace
	source mirrorSource
	log    *slog.Logger
}

// mirrorOf is the origin and the id of the mirror of a strong keyspace.
func mirrorOf(e host.Entry) (crdt.Inc, keyspaceID, error) {
	k := &e.Keyspace
	gen, err := keyspace.MirrorGeneration(k.Gen, k.Epoch)
	id := keyspaceID{Name: keyspace.MirrorName(k.Name), Gen: gen}
	return bridge.Origin(e.Cluster, k.Name, k.Gen, k.Epoch), id, err
}

// mirrorWanted reports whether the mirror of a strong keyspace is held by a node that has no
// replica of it.
func mirrorWanted(e host.Entry, holders []string) bool {
	return slices.ContainsFunc(holders, func(name string) bool {
		for _, m := range e.Keyspace.Members {
			if m.Server == name {
				return false
			}
		}
		return true
	})
}

// run feeds until ctx ends, or the keyspace or the replica does: the error is the cause of
// ctx, or matches client.ErrUnavailable or replica.ErrWatchClosed.
func (f *mirrorFeeder) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	announced := make(chan struct{})
	go func() {
		defer close(announced)
		f.announce(ctx)
	}()
	defer func() {
		cancel()
		<-announced
		f.ks.StopFeeding(time.Now())
	}()
	for {
		err := f.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, machine.ErrCompacted): // it was slower than the history is long
		case errors.Is(err, client.ErrOverloaded), errors.Is(err, gossip.ErrFeed):
			if err := pause(ctx, feedPause); err != nil {
				return err
			}
		default:
			return fmt.Errorf("feed mirror %s: %w", f.ks.Name(), err)
		}
		f.log.Debug("mirror is fed anew", "err", err)
	}
}

// follow feeds the state and then all changes.
func (f *mirrorFeeder) follow(ctx context.Context) error {
	view, w := f.source.Follow()
	defer w.Close()
	if err := f.ks.FeedState(ctx, bridge.StateOf(f.ks.Origin(), view)); err != nil {
		return err
	}
	for {
		changes, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if err := f.ks.Feed(time.Now(), bridge.Ops(f.ks.Origin(), changes)); err != nil {
			return err
		}
	}
}

// announce tells how far the keyspace is, while this node leads.
func (f *mirrorFeeder) announce(ctx context.Context) {
	ticker := time.NewTicker(announceEvery)
	defer ticker.Stop()
	for {
		if f.source.Leads() {
			st := f.source.View().Status()
			f.ks.Announce(time.Now(), uint64(st.Seq), uint64(st.Revision))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// pause waits, and returns the cause of ctx if that ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
