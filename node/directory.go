package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip/mesh"
)

// A record is what a node says of itself in the directory.
type record struct {
	Inc       string   `json:"inc"`
	Addr      string   `json:"addr"`
	API       string   `json:"api,omitempty"`
	Zone      string   `json:"zone,omitempty"`
	Roles     []string `json:"roles,omitempty"`
	Keyspaces []string `json:"keyspaces"` // "*": all that exist
	Without   []string `json:"without,omitempty"`
}

func (r record) holds(keyspace string) bool {
	w := wishes{All: slices.Contains(r.Keyspaces, everyKeyspace), Names: r.Keyspaces, Without: r.Without}
	return w.wants(keyspace)
}

// A directory is what the nodes said of themselves, last. Safe for concurrent
// use.
type directory struct {
	mu      sync.Mutex // protects records
	records map[string]record
}

func newDirectory() *directory { return &directory{records: make(map[string]record)} }

func (d *directory) set(name string, r record) {
	slices.Sort(r.Keyspaces)
	slices.Sort(r.Without)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[name] = r
}

// record is what a node said of itself, if it is known.
func (d *directory) record(name string) (r record, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, known = d.records[name]
	return r, known
}

func (d *directory) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.records, name)
}

func (d *directory) snapshot() map[string]record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.records)
}

// register puts this node's record into the directory of all. It is bound to the
// node's incarnation: it disappears while the node is failed, and with it.
func (n *Node) register(ctx context.Context) error {
	w := n.wanted.snapshot()
	r := record{
		Inc: n.Inc(), Addr: n.MeshAddr(), API: n.APIAddr(), Zone: n.cfg.Zone, Roles: n.cfg.Roles,
		Keyspaces: w.Names, Without: w.Without,
	}
	if w.All {
		r.Keyspaces = []string{everyKeyspace}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := n.held(membersKeyspace).ks.Put(ctx, n.cfg.Name, b, &client.PutOptions{Ephemeral: true}); err != nil {
		return fmt.Errorf("enter the node into the directory: %w", err)
	}
	return nil
}

// watchDirectory keeps the directory up to date.
func (n *Node) watchDirectory(ctx context.Context) {
	n.watchSystem(ctx, membersKeyspace, func(ev client.Event) {
		if ev.Type != client.EventPut {
			return // what a failed node held, it holds still; observe forgets who is gone
		}
		var r record
		if err := json.Unmarshal(ev.Entry.Value, &r); err != nil {
			n.drops.add("directory_malformed")
			return
		}
		n.directory.set(ev.Entry.Key, r)
		n.overlay.kick()
	})
}

// A holder is another node that holds a keyspace, as far as is known here.
type holder struct {
	name, zone string
	alive      bool // or suspect
	rtt        time.Duration
}

// holders are the other nodes that hold a keyspace, failed ones included, by
// name. What a peer says over its link counts more than the directory, which may
// lag behind.
func (n *Node) holders(keyspace string) []holder {
	if e, ok := n.strongs.entries.Load(keyspace); ok && !e.Keyspace.Removed {
		return n.strongHolders(e)
	}
	if base, ok := strings.CutSuffix(keyspace, mirrorSuffix); ok {
		return n.mirrorHolders(base)
	}
	return n.joinedHolders(keyspace)
}

// joinedHolders are the other nodes that were told to hold a keyspace of that name.
func (n *Node) joinedHolders(keyspace string) []holder {
	told := make(map[string]bool)
	for _, p := range n.allPeers() {
		if i := p.theirs.Load(); i != nil {
			told[p.link.Peer.Name] = i.wants(keyspace)
		}
	}
	records := n.directory.snapshot()
	var all []holder
	for _, m := range n.mesh.Members() {
		if m.Name == n.cfg.Name || m.Inc == 0 || m.Status == mesh.StatusLeft {
			continue
		}
		holds, known := told[m.Name]
		if !known {
			holds = isSystem(keyspace) || records[m.Name].holds(keyspace)
		}
		if holds {
			all = append(all, holder{m.Name, m.Zone, m.Status == mesh.StatusAlive || m.Status == mesh.StatusSuspect, m.RTT})
		}
	}
	return all
}

// othersHold reports whether there is another node that holds the keyspace.
func (n *Node) othersHold(keyspace string) bool { return len(n.holders(keyspace)) > 0 }

// memberNames are the nodes that are alive and hold the keyspace, ascending.
func (n *Node) memberNames(keyspace string) []string {
	var names []string
	for _, h := range n.holders(keyspace) {
		if h.alive {
			names = append(names, h.name)
		}
	}
	if n.held(keyspace) != nil {
		names = append(names, n.cfg.Name)
	}
	slices.Sort(names)
	return names
}
