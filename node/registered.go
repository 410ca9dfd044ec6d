package node

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/mesh"
)

// registeredFor is how long what was found of the members of a keyspace is used:
// writes that wait for acknowledgements ask with each one.
const registeredFor = 100 * time.Millisecond

// A registry remembers for a moment who is registered. Safe for concurrent use.
type registry struct {
	mu    sync.Mutex // protects found
	found map[string]registered
}

type registered struct {
	names []string // ascending, never modified
	known bool
	at    time.Time
}

func newRegistry() *registry { return &registry{found: make(map[string]registered)} }

// registered are the members of a keyspace of which a write may have to wait for
// acknowledgements, failed ones and this node included, until they have left or were
// reaped. It implements keyspace.MembersFunc.
//
// Not known: the directory was not yet found equal to a peer's, so that members may
// be missing which this node has never met, or joined while it was down. Only a node
// that was given nobody to join, and remembers nobody, is alone.
func (n *Node) registered(name string) (names []string, known bool) {
	n.registry.mu.Lock()
	defer n.registry.mu.Unlock()
	if r, ok := n.registry.found[name]; ok && time.Since(r.at) < registeredFor {
		return r.names, r.known
	}
	r := registered{at: time.Now()}
	r.names = n.registeredNow(name)
	r.known = n.held(membersKeyspace).ks.Met() || len(n.cfg.Join) == 0 && len(r.names) == 1
	if len(n.registry.found) > maxKeyspaces { // most are of keyspaces that are gone
		clear(n.registry.found)
	}
	n.registry.found[name] = r
	return r.names, r.known
}

// registeredNow counts everybody who says so, who said so last, or whose entry in
// the directory says so: one too many makes a write wait, one too few would
// acknowledge what is not safe. A member that starts anew is between two entries for
// a moment, and a node that starts knows only the directory on its disk.
func (n *Node) registeredNow(name string) []string {
	told := make(map[string]bool)
	for _, p := range n.allPeers() {
		if i := p.theirs.Load(); i != nil {
			told[p.link.Peer.Name] = i.wants(name)
		}
	}
	status := make(map[string]mesh.Status)
	for _, m := range n.mesh.Members() {
		if m.Inc != 0 {
			status[m.Name] = m.Status
		}
	}
	members := map[string]bool{n.cfg.Name: true}
	count := func(member string, r record) {
		holds, known := told[member]
		if !known {
			holds = isSystem(name) || r.holds(name)
		}
		if holds {
			members[member] = true
		}
	}
	for member, r := range n.directory.snapshot() {
		if s, here := status[member]; here && s != mesh.StatusLeft {
			count(member, r)
		}
	}
	n.held(membersKeyspace).ks.Bound(func(member string, value []byte, owner crdt.OwnerState) {
		var r record
		if s, here := status[member]; here && s == mesh.StatusLeft || !here && owner == crdt.OwnerClosed {
			return
		}
		if json.Unmarshal(value, &r) == nil { // watchDirectory counts what is malformed
			count(member, r)
		}
	})
	for member := range told {
		count(member, record{})
	}
	return slices.Sorted(maps.Keys(members))
}
