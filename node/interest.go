package node

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

// A link frame without a keyspace's name is of the nodes themselves:
//
//	[0] [kind u8] [payload]
//	interest: [flags u8] [count] ([id] [epoch])… [count] ([name])… [count] ([name])…
//	          counts and epochs as uvarints, strings as [len u8] [bytes]
//
// Unknown kinds, and what follows the known fields, are skipped.
const (
	controlInterest = 1

	interestAll = 1 // flag: holds whatever comes into being, but for the names at the end

	// maxInterest bounds the names of one interest: what a node may hold, and
	// as many that it left.
	maxInterest = 2 * maxKeyspaces
)

// An interest is what a node says that it holds. The epoch of each keyspace
// changes when it is opened anew.
type interest struct {
	All     bool // every keyspace that comes into being, less Without
	Held    map[keyspaceID]uint64
	Without []string // ascending
	Named   []string // ascending: held as soon as they come into being
}

// epoch of the keyspace at that node; 0 if it has not told one yet. False if the
// node does not hold it.
func (i *interest) epoch(id keyspaceID) (epoch uint64, holds bool) {
	if isSystem(id.Name) {
		return 0, true
	}
	if i == nil {
		return 0, false
	}
	if e, ok := i.Held[id]; ok {
		return e, true
	}
	if !i.All || slices.Contains(i.Without, id.Name) || isMirror(id.Name) { // of which it tells each
		return 0, false
	}
	for other := range i.Held {
		if other.Name == id.Name {
			return 0, false // of another generation
		}
	}
	return 0, true
}

// wants reports whether the node holds the keyspace, in whatever generation, or
// will.
func (i *interest) wants(name string) bool {
	for id := range i.Held {
		if id.Name == name {
			return true
		}
	}
	return isSystem(name) || (i.All || slices.Contains(i.Named, name)) && !slices.Contains(i.Without, name)
}

// appendInterest appends the frame that tells i.
func appendInterest(b []byte, i interest) []byte {
	b = append(b, 0, controlInterest)
	var flags byte
	if i.All {
		flags |= interestAll
	}
	b = append(b, flags)
	ids := make([]keyspaceID, 0, len(i.Held))
	for id := range i.Held {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, compareIDs)
	b = binary.AppendUvarint(b, uint64(len(ids)))
	for _, id := range ids {
		b = appendName(b, id.String())
		b = binary.AppendUvarint(b, i.Held[id])
	}
	b = appendNames(b, i.Without)
	return appendNames(b, i.Named)
}

func appendNames(b []byte, names []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = appendName(b, name)
	}
	return b
}

func appendName(b []byte, name string) []byte { return append(append(b, byte(len(name))), name...) }

// parseInterest reads the payload of an interest frame.
func parseInterest(b []byte) (i interest, err error) {
	if len(b) == 0 {
		return i, fmt.Errorf("%w: interest without flags", errFrame)
	}
	i.All = b[0]&interestAll != 0
	b = b[1:]
	count, b, err := takeCount(b)
	if err != nil {
		return i, err
	}
	i.Held = make(map[keyspaceID]uint64)
	for range count {
		var name string
		if name, b, err = takeName(b); err != nil {
			return i, err
		}
		id, err := parseKeyspaceID(name)
		if err != nil {
			return i, fmt.Errorf("%w: %w", errFrame, err)
		}
		epoch, n := binary.Uvarint(b)
		if n <= 0 {
			return i, fmt.Errorf("%w: interest ends early", errFrame)
		}
		b = b[n:]
		i.Held[id] = epoch
	}
	if i.Without, b, err = takeNames(b); err != nil {
		return i, err
	}
	i.Named, _, err = takeNames(b)
	return i, err
}

func takeNames(b []byte) (names []string, rest []byte, err error) {
	count, b, err := takeCount(b)
	if err != nil {
		return nil, nil, err
	}
	for range count {
		var name string
		if name, b, err = takeName(b); err != nil {
			return nil, nil, err
		}
		if err := checkKeyspaceName(name); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errFrame, err)
		}
		names = append(names, name)
	}
	return names, b, nil
}

func takeCount(b []byte) (count uint64, rest []byte, err error) {
	count, n := binary.Uvarint(b)
	if n <= 0 || count > maxInterest {
		return 0, nil, fmt.Errorf("%w: count of an interest", errFrame)
	}
	return count, b[n:], nil
}

func takeName(b []byte) (name string, rest []byte, err error) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, fmt.Errorf("%w: interest ends early", errFrame)
	}
	end := 1 + int(b[0])
	return string(b[1:end]), b[end:], nil
}

// interest is what this node tells its peers.
func (n *Node) interest() interest {
	wanted := n.wanted.snapshot()
	i := interest{All: wanted.All, Without: wanted.Without, Named: wanted.Names, Held: make(map[keyspaceID]uint64)}
	for _, h := range n.allHeld() {
		if !isSystem(h.id.Name) {
			i.Held[h.id] = h.epoch
		}
	}
	return i
}

// announceAll tells every peer anew what this node holds.
func (n *Node) announceAll() {
	for _, p := range n.allPeers() {
		p.announce()
	}
}

// control takes a frame of the nodes themselves. An error closes the link.
func (n *Node) control(p *peer, payload []byte) error {
	if len(payload) == 0 {
		return fmt.Errorf("%w: control frame without a kind", errFrame)
	}
	if payload[0] != controlInterest {
		n.drops.add("unknown_control")
		return nil
	}
	i, err := parseInterest(payload[1:])
	if err != nil {
		return err
	}
	n.heed(time.Now(), p, i)
	return nil
}

// heed takes note of what a peer holds: it opens here what it should, drops what
// was removed, and connects the keyspaces that both hold.
func (n *Node) heed(now time.Time, p *peer, i interest) {
	ids := make([]keyspaceID, 0, len(i.Held))
	for id := range i.Held {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, compareIDs)
	n.linkMu.Lock()
	p.theirs.Store(&i)
	for _, id := range ids {
		if isMirror(id.Name) {
			continue // what is to be held here follows from the catalog of strong keyspaces
		}
		// A later generation is the catalog's to tell: what is here would be dropped.
		if known, _ := n.catalog.life(id.Name); id.Gen > known.Generation {
			n.drops.add("generation_not_known")
			continue
		}
		n.follow(now, id.Name, life{Generation: id.Gen})
	}
	for _, h := range n.allHeld() {
		n.connect(now, p, h)
	}
	n.linkMu.Unlock()
	n.overlay.kick()
}

// follow makes this node hold what the newest known life of a keyspace asks
// for. Called with linkMu held.
func (n *Node) follow(now time.Time, name string, told life) {
	known, exists := n.catalog.learn(name, told)
	h := n.held(name)
	if h != nil && h.id.Gen < known.Generation {
		h.removed.Store(true)
		finish := n.release(now, h)
		n.background.Go(func() { n.dropLater(finish) })
		h = nil
	}
	if h != nil || !exists || !n.wanted.wants(name) || n.draining.Load() {
		return
	}
	if n.holdings.Size()-len(systemKeyspaces()) >= maxKeyspaces {
		n.drops.add("keyspace_not_opened")
		return
	}
	n.hold(now, keyspaceID{name, known.Generation}, storage.KeyspaceState{}, true)
}

// A linkUp is one keyspace that runs over a link.
type linkUp struct {
	h     *holding
	epoch uint64 // of the peer; 0 if it has told none
	role  gossip.Role
}

// connect begins or ends the replication of h over the link of p, as both sides
// hold it or not. Called with linkMu held.
func (n *Node) connect(now time.Time, p *peer, h *holding) {
	epoch, holds := p.theirs.Load().epoch(h.id)
	up, isUp := p.up[h.id.Name]
	if isUp && holds && up.h == h && (up.epoch == epoch || up.epoch == 0) {
		up.epoch = epoch
		p.up[h.id.Name] = up
		return
	}
	if isUp {
		up.h.ks.LinkDown(now, p.id)
		delete(p.up, h.id.Name)
	}
	if holds && !h.gone.Load() {
		up := linkUp{h, epoch, n.overlay.role(h.id.Name, p.link.Peer.Name)}
		p.up[h.id.Name] = up
		h.ks.LinkUp(now, p.id, up.role)
		h.ks.SetNear(p.id, p.link.Peer.Zone == n.cfg.Zone)
	}
}

// disconnect ends the replication of h over the link of p. Called with linkMu held.
func (n *Node) disconnect(now time.Time, p *peer, h *holding) {
	if up, ok := p.up[h.id.Name]; ok && up.h == h {
		h.ks.LinkDown(now, p.id)
		delete(p.up, h.id.Name)
	}
}

func compareIDs(a, b keyspaceID) int {
	switch {
	case a.Name != b.Name:
		if a.Name < b.Name {
			return -1
		}
		return 1
	case a.Gen != b.Gen:
		if a.Gen < b.Gen {
			return -1
		}
		return 1
	}
	return 0
}

// errNotHeld: a request that was forwarded came to a node that is no member.
var errNotHeld = fmt.Errorf("%w: this node does not hold the keyspace", client.ErrUnavailable)
