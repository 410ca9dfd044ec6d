package node

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/replica"
	"github.com/meshkv/meshkv/keyspace"
	"github.com/meshkv/meshkv/storage"
)

// Mirrors are held like other keyspaces, under ids that users cannot name. A node that was
// told to hold a strong keyspace (--keyspaces, join), and has no replica of it, holds its
// mirror. The members of the group hold and feed it while such a node exists. All follow
// from the catalog and the directory, so that all nodes agree on who holds it.

// mirrorEvery is how often a node looks which mirrors it should hold.
const mirrorEvery = time.Second

const mirrorSuffix = keyspace.MirrorSuffix

// isMirror reports whether name is that of a mirror.
func isMirror(name string) bool { return strings.HasSuffix(name, mirrorSuffix) }

// checkHeldName refuses what no node holds under an id.
func checkHeldName(name string) error {
	return checkKeyspaceName(strings.TrimSuffix(name, mirrorSuffix))
}

// mirrorHolders are the other nodes that hold the mirror of a strong keyspace, or will.
func (n *Node) mirrorHolders(name string) (all []holder) {
	e, ok := n.strongs.entries.Load(name)
	if !ok || e.Keyspace.Removed {
		return nil
	}
	joined := n.joinedHolders(name)
	names := make([]string, 0, len(joined)+1)
	for _, h := range joined {
		names = append(names, h.name)
	}
	if n.wanted.wants(name) {
		names = append(names, n.cfg.Name)
	}
	if !mirrorWanted(e, names) {
		return nil
	}
	members := n.strongHolders(e)
	isMember := make(map[string]bool, len(members))
	for _, m := range members {
		isMember[m.name] = true
	}
	for _, h := range joined {
		if !isMember[h.name] {
			all = append(all, h)
		}
	}
	return append(all, members...)
}

// mirrors is which mirrors this node feeds. It is used by one goroutine.
type mirrors struct {
	n       *Node
	feeding map[string]*feeding // by name of the mirror
	working sync.WaitGroup
}

// feeding is one feeder at work.
type feeding struct {
	ks      *keyspace.Keyspace
	replica *replica.Replica
	cancel  context.CancelFunc
	done    chan struct{}
}

// followMirrors holds and feeds the mirrors that this node should, until ctx ends.
func (n *Node) followMirrors(ctx context.Context) {
	m := &mirrors{n: n, feeding: make(map[string]*feeding)}
	defer m.working.Wait()
	ticker := time.NewTicker(mirrorEvery)
	defer ticker.Stop()
	for {
		if !n.draining.Load() {
			m.step(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// step looks at every strong keyspace once.
func (m *mirrors) step(ctx context.Context) {
	n := m.n
	due := make(map[string]keyspaceID) // that are to be held here, by name
	n.strongs.entries.Range(func(name string, e host.Entry) bool {
		if name == host.System || e.Keyspace.Removed {
			return true
		}
		r, of := n.replicaOf(name)
		if r != nil {
			e = of
		}
		wanted := n.wanted.wants(name)
		if r != nil {
			wanted = n.mirrorJoined(e)
		}
		if !wanted {
			return true
		}
		ks, id, err := n.openMirror(e)
		if err != nil {
			n.drops.add("mirror_not_opened")
			n.log.Debug("mirror not opened", "keyspace", name, "err", err)
			return true
		}
		due[id.Name] = id
		m.feed(ctx, ks, r)
		return true
	})
	for name, f := range m.feeding {
		select {
		case <-f.done:
			delete(m.feeding, name)
		default:
			if _, ok := due[name]; !ok {
				f.cancel()
			}
		}
	}
	for _, h := range n.allHeld() {
		base, is := strings.CutSuffix(h.id.Name, mirrorSuffix)
		if _, known := n.strongs.entries.Load(base); !is || !known { // at the start it is not learned yet
			continue
		}
		if id, ok := due[h.id.Name]; !ok || id != h.id {
			n.releaseMirror(h)
		}
	}
}

// mirrorJoined reports whether a node that is no member holds the mirror, or will.
func (n *Node) mirrorJoined(e host.Entry) bool {
	var names []string
	for _, h := range n.joinedHolders(e.Keyspace.Name) {
		names = append(names, h.name)
	}
	return mirrorWanted(e, names)
}

// replicaOf is this node's replica of a strong keyspace, and the entry that it is of.
func (n *Node) replicaOf(name string) (*replica.Replica, host.Entry) {
	h := n.strongs.host.Load()
	if h == nil {
		return nil, host.Entry{}
	}
	before, _ := h.Entry(name)
	r, ok := h.Replica(name)
	after, _ := h.Entry(name)
	if !ok || before.Keyspace.Group() != after.Keyspace.Group() { // it may be of either: look again later
		return nil, host.Entry{}
	}
	return r, after
}

// feed has ks fed by r, or by nobody if r is nil.
func (m *mirrors) feed(ctx context.Context, ks *keyspace.Keyspace, r *replica.Replica) {
	if f := m.feeding[ks.Name()]; f != nil {
		if f.ks == ks && f.replica == r {
			return
		}
		f.cancel()
		<-f.done
		delete(m.feeding, ks.Name())
	}
	if r == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &feeding{ks, r, cancel, make(chan struct{})}
	m.feeding[ks.Name()] = f
	m.working.Go(func() {
		defer cancel()
		defer close(f.done)
		err := (&mirrorFeeder{ks, replicaSource{r}, m.n.log.With("keyspace", ks.Name())}).run(ctx)
		m.n.log.Debug("mirror is fed no more", "keyspace", ks.Name(), "err", err)
	})
}

// openMirror is the mirror of an entry, opened now if it is not held.
func (n *Node) openMirror(e host.Entry) (*keyspace.Keyspace, keyspaceID, error) {
	origin, id, err := mirrorOf(e)
	if err != nil {
		return nil, id, err
	}
	n.linkMu.Lock()
	defer n.linkMu.Unlock()
	h := n.held(id.Name)
	if h != nil && h.id == id {
		return h.ks, id, nil
	}
	if h != nil { // of an earlier epoch
		finish := n.release(time.Now(), h)
		n.background.Go(func() { n.dropLater(finish) })
	}
	if n.holdings.Size()-len(systemKeyspaces()) >= maxKeyspaces {
		return nil, id, client.ErrTooLarge
	}
	ks, err := keyspace.OpenMirror(id.String(), origin, n.env, storage.KeyspaceState{}, time.Now())
	if err != nil {
		return nil, id, err
	}
	n.take(time.Now(), id, ks, true)
	return ks, id, nil
}

// resumeMirror opens a mirror that the store has, unless it is of an origin that has ended.
// Called with linkMu held.
func (n *Node) resumeMirror(now time.Time, id keyspaceID, st storage.KeyspaceState) bool {
	e, err := n.readStrong(strings.TrimSuffix(id.Name, mirrorSuffix))
	if err != nil || e.Keyspace.Removed {
		return false
	}
	origin, current, err := mirrorOf(e)
	if err != nil || current != id {
		return false
	}
	ks, err := keyspace.OpenMirror(id.String(), origin, n.env, st, now)
	if err != nil {
		n.log.Warn("mirror on disk is not used", "keyspace", id.Name, "err", err)
		return false
	}
	n.take(now, id, ks, false)
	return true
}

// releaseMirror gives up a mirror: it is a copy.
func (n *Node) releaseMirror(h *holding) {
	n.linkMu.Lock()
	defer n.linkMu.Unlock()
	if n.held(h.id.Name) != h {
		return
	}
	finish := n.release(time.Now(), h)
	n.background.Go(func() { n.dropLater(finish) })
}

// mirror is the mirror of a strong keyspace, if this node holds one that can be read.
func (n *Node) mirror(name string) (*keyspace.Keyspace, bool) {
	h := n.held(keyspace.MirrorName(name))
	if h == nil || !h.serves.Load() {
		return nil, false
	}
	return h.ks, true
}
