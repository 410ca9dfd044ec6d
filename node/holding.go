package node

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/keyspace"
	"github.com/meshkv/meshkv/storage"
)

// maxKeyspaces bounds what peers and clients can make this node hold.
const maxKeyspaces = 1024

// The keyspaces of the system, which every node holds. Users may read them.
const (
	membersKeyspace = "_members"
	catalogKeyspace = "_keyspaces"
	strongKeyspace  = "_strong"
	sealsKeyspace   = "_seals"
)

func systemKeyspaces() []string {
	return []string{catalogKeyspace, membersKeyspace, sealsKeyspace, strongKeyspace}
}

func isSystem(name string) bool { return slices.Contains(systemKeyspaces(), name) }

var keyspaceName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func checkKeyspaceName(name string) error {
	if !keyspaceName.MatchString(name) && !isSystem(name) {
		return fmt.Errorf("%w: keyspace name %q: use 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit", client.ErrBadRequest, name)
	}
	return nil
}

// A keyspaceID names one life of a keyspace. Removing a keyspace ends it, and
// what comes into being under the same name later is of the next generation:
// peers and the store know it by another name, so that nothing of the former one
// can reach it.
type keyspaceID struct {
	Name string
	Gen  uint64
}

// String is the name and, from generation 1 on, "#" and the generation, which no
// name of users can hold.
func (id keyspaceID) String() string {
	if id.Gen == 0 {
		return id.Name
	}
	return id.Name + "#" + strconv.FormatUint(id.Gen, 10)
}

// parseKeyspaceID is the inverse of String.
func parseKeyspaceID(s string) (keyspaceID, error) {
	name, gen, later := strings.Cut(s, "#")
	id := keyspaceID{Name: name}
	if later {
		n, err := strconv.ParseUint(gen, 10, 64)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != gen {
			return id, fmt.Errorf("%w: generation of keyspace %q", client.ErrBadRequest, s)
		}
		id.Gen = n
	}
	return id, checkHeldName(name)
}

// A holding is one keyspace that this node holds, from its opening until the
// node leaves it or learns that it was removed. One that begins empty beside
// others is joining: it takes puts, and reads go to a member until the first
// session has ended.
type holding struct {
	id    keyspaceID
	ks    *keyspace.Keyspace
	epoch uint64 // tells this opening from others of the same keyspace

	serves  atomic.Bool   // answers reads; false while it joins, and at the end
	gone    atomic.Bool   // no longer held here
	removed atomic.Bool   // and nowhere else; set before gone
	leaving atomic.Bool   // takes no writes any more
	settled chan struct{} // closed when it serves for the first time, or is gone

	damagedAt time.Time // when it was found damaged; of the tick alone

	handle, inner handle // for clients, and for other nodes
}

// settle ends the joining. Called with linkMu held.
func (h *holding) settle() {
	select {
	case <-h.settled:
	default:
		if !h.gone.Load() {
			h.serves.Store(true)
		}
		close(h.settled)
	}
}

// held is the holding of that name, or nil.
func (n *Node) held(name string) *holding {
	h, _ := n.holdings.Load(name)
	return h
}

// find is the keyspace of that id, or nil.
func (n *Node) find(id string) *keyspace.Keyspace {
	name, _, _ := strings.Cut(id, "#")
	if h := n.held(name); h != nil && h.ks.ID() == id {
		return h.ks
	}
	return nil
}

// allHeld are the holdings by name, those of the system among them.
func (n *Node) allHeld() []*holding {
	all := make([]*holding, 0, n.holdings.Size())
	n.holdings.Range(func(_ string, h *holding) bool {
		all = append(all, h)
		return true
	})
	slices.SortFunc(all, func(a, b *holding) int { return strings.Compare(a.id.Name, b.id.Name) })
	return all
}

// sorted are the keyspaces by name, those of the system among them.
func (n *Node) sorted() []*keyspace.Keyspace {
	held := n.allHeld()
	all := make([]*keyspace.Keyspace, len(held))
	for i, h := range held {
		all[i] = h.ks
	}
	return all
}

// hold opens a keyspace here: from st, or empty, and then beside others if it
// joins. Called with linkMu held.
func (n *Node) hold(now time.Time, id keyspaceID, st storage.KeyspaceState, joins bool) *holding {
	return n.take(now, id, keyspace.Open(id.String(), n.env, st, now), joins)
}

// take begins the holding of a keyspace that was opened. Called with linkMu held.
func (n *Node) take(now time.Time, id keyspaceID, ks *keyspace.Keyspace, joins bool) *holding {
	n.epoch++
	h := &holding{id: id, ks: ks, epoch: n.epoch, settled: make(chan struct{})}
	h.handle.n, h.handle.name = n, id.Name
	h.inner.n, h.inner.name, h.inner.member = n, id.Name, true
	h.handle.cur.Store(h)
	h.inner.cur.Store(h)
	if !joins {
		h.settle()
	}
	n.applySettings(now, h) // before its first write
	n.holdings.Store(id.Name, h)
	if !isSystem(id.Name) {
		n.log.Info("keyspace opened", "keyspace", id.Name, "generation", id.Gen, "joins", joins)
	}
	for _, p := range n.allPeers() {
		p.announce() // before its first frame, so that the peer has opened it by then
		n.connect(now, p, h)
	}
	n.overlay.kick()
	n.env.Doze.Stir() // only now does nextDue see it
	return h
}

// resume opens what the store holds, and the keyspaces of the system. What was
// removed or left while the store kept it is not opened: it is to be dropped.
func (n *Node) resume(states map[string]storage.KeyspaceState) (obsolete []func(context.Context) error) {
	n.linkMu.Lock()
	defer n.linkMu.Unlock()
	now := n.started
	for _, name := range systemKeyspaces() {
		n.hold(now, keyspaceID{Name: name}, states[name], false)
	}
	for e, err := range n.held(catalogKeyspace).ks.List(context.Background(), "", &client.ListOptions{KeysOnly: true}) {
		if err != nil {
			break // the context does not end, and there is no other
		}
		if l, err := n.readLife(context.Background(), e.Key); err == nil && checkUserKeyspace(e.Key) == nil {
			n.catalog.learn(e.Key, l)
		}
	}
	n.recallStrongs()
	newest := make(map[string]uint64)
	for s := range states {
		if id, err := parseKeyspaceID(s); err == nil {
			newest[id.Name] = max(newest[id.Name], id.Gen)
		}
	}
	for s, st := range states {
		id, err := parseKeyspaceID(s)
		if err != nil || isSystem(id.Name) {
			continue
		}
		if isMirror(id.Name) {
			if !n.resumeMirror(now, id, st) {
				obsolete = append(obsolete, keyspace.Open(s, n.env, storage.KeyspaceState{}, now).Drop)
			}
			continue
		}
		known, _ := n.catalog.life(id.Name)
		left := slices.Contains(n.wanted.snapshot().Without, id.Name)
		if left || id.Gen < max(newest[id.Name], known.Generation) {
			obsolete = append(obsolete, keyspace.Open(s, n.env, storage.KeyspaceState{}, now).Drop)
			continue
		}
		if !n.wanted.wants(id.Name) {
			n.log.Warn("keyspace is on disk and goes on being held, though the configuration does not name it", "keyspace", id.Name)
			n.wanted.hold(id.Name)
		}
		n.catalog.learn(id.Name, life{Generation: id.Gen})
		n.hold(now, id, st, false)
	}
	return obsolete
}

// release ends a holding: its data is dropped, from the store too. Called with
// linkMu held; finish is to be called without.
func (n *Node) release(now time.Time, h *holding) (finish func(context.Context) error) {
	h.gone.Store(true)
	h.serves.Store(false)
	h.settle()
	n.holdings.Delete(h.id.Name)
	for _, p := range n.allPeers() {
		n.disconnect(now, p, h)
		p.announce()
	}
	n.overlay.kick()
	n.log.Info("keyspace dropped", "keyspace", h.id.Name, "generation", h.id.Gen)
	return h.ks.Drop
}

// dropLater finishes what release began, while nobody waits for it.
func (n *Node) dropLater(finish func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := finish(ctx); err != nil {
		n.log.Warn("keyspace not dropped from the store", "err", err)
	}
}

// open is the keyspace of that name, made now if there is none. The caller has
// found that this node wants it.
func (n *Node) open(name string) (*holding, error) {
	if h := n.held(name); h != nil {
		return h, nil
	}
	if err := checkKeyspaceName(name); err != nil {
		return nil, err
	}
	h, created, err := n.openHere(name)
	if err == nil && created {
		err = n.enter(name)
	}
	return h, err
}

// openHere reports whether the keyspace came into being with this call.
func (n *Node) openHere(name string) (h *holding, created bool, err error) {
	n.linkMu.Lock()
	defer n.linkMu.Unlock()
	if h := n.held(name); h != nil {
		return h, false, nil
	}
	if n.holdings.Size()-len(systemKeyspaces()) >= maxKeyspaces {
		return nil, false, fmt.Errorf("%w: this node holds %d keyspaces, and no more fit", client.ErrTooLarge, maxKeyspaces)
	}
	if n.draining.Load() {
		return nil, false, client.ErrDraining
	}
	// Where the catalog knows of it, others hold it; where it does not, it
	// comes into being here.
	known, exists := n.catalog.life(name)
	known.Removed = false
	n.catalog.learn(name, known)
	return n.hold(time.Now(), keyspaceID{name, known.Generation}, storage.KeyspaceState{}, exists), !exists, nil
}

// settleHoldings ends the joining of keyspaces whose first session has ended, or
// for which there is nobody to join.
func (n *Node) settleHoldings() {
	for _, h := range n.allHeld() {
		if h.serves.Load() || h.gone.Load() {
			continue
		}
		if h.ks.Met() || !n.othersHold(h.id.Name) {
			n.linkMu.Lock()
			h.settle()
			n.linkMu.Unlock()
			n.log.Info("keyspace joined", "keyspace", h.id.Name)
		}
	}
}
