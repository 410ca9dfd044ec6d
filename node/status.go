package node

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/keyspace"
)

// drops counts what was dropped, by reason. The reasons are constants of the
// code, so the map is bounded.
type drops struct {
	mu     sync.Mutex // protects counts
	counts map[string]uint64
}

func (d *drops) add(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = make(map[string]uint64)
	}
	d.counts[reason]++
}

func (d *drops) snapshot() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.counts)
}

// Version is the version of the module that the program was built from.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// NotReady says what readiness waits for: while the node is stopping, for ever;
// and at the start, where there are others to hear from, for a first link and
// for one completed comparison of every keyspace with a peer.
func (n *Node) NotReady() []string {
	if n.draining.Load() {
		return []string{"stopping"}
	}
	if len(n.seeds()) > 0 && !n.everLinked.Load() {
		return []string{"no seed reached yet: " + strings.Join(n.seeds(), ", ")}
	}
	var waits []string
	if n.peers.Size() > 0 {
		for _, ks := range n.sorted() {
			if !ks.Met() {
				waits = append(waits, "keyspace "+ks.Name()+" not synchronised with a peer yet")
			}
		}
	}
	return waits
}

// seeds are the addresses to join, less our own.
func (n *Node) seeds() []string {
	return slices.DeleteFunc(slices.Clone(n.cfg.Join), func(a string) bool {
		return a == n.cfg.Bind || a == n.cfg.Advertise || a == n.MeshAddr()
	})
}

// Status implements client.Cluster.
func (n *Node) Status(ctx context.Context) (client.Status, error) {
	members, err := n.Members(ctx)
	if err != nil {
		return client.Status{}, err
	}
	s := client.Status{
		Name:     n.cfg.Name,
		Inc:      n.Inc(),
		Version:  Version(),
		MeshAddr: n.MeshAddr(),
		APIAddr:  n.APIAddr(),
		Uptime:   time.Since(n.started),
		NotReady: n.NotReady(),
		Members:  make(map[client.MemberStatus]int),
		Drops:    n.drops.snapshot(),
	}
	s.Ready = len(s.NotReady) == 0
	for _, m := range members {
		s.Members[m.Status]++
	}
	queued := make(map[gossip.PeerID]int)
	for _, ks := range n.sorted() {
		st := ks.Status()
		s.Keyspaces = append(s.Keyspaces, st)
		gs := ks.Stats()
		if gs.OpsFarAhead > 0 {
			s.Warnings = append(s.Warnings, fmt.Sprintf("keyspace %s: %d writes came from a clock that is more than %s ahead of ours", st.Name, gs.OpsFarAhead, keyspace.MaxClockDrift))
		}
		if gs.FuseHeld > 0 {
			s.Warnings = append(s.Warnings, fmt.Sprintf("keyspace %s: a reconciliation that would drop %d cells waits for a second verdict", st.Name, gs.FuseHeld))
		}
		if st.Diverged {
			s.Warnings = append(s.Warnings, "keyspace "+st.Name+" differs from a peer's")
		}
		for _, l := range ks.Links() {
			queued[l.Peer] += l.QueuedOps
		}
	}
	for _, p := range n.allPeers() {
		s.Links = append(s.Links, client.LinkStatus{
			Peer:      p.link.Peer.Name,
			Addr:      p.link.Addr(),
			RTT:       p.link.RTT(),
			SentBytes: uint64(p.link.SentBytes()),
			RecvBytes: uint64(p.link.RecvBytes()),
			Queued:    queued[p.id],
		})
	}
	if n.writer != nil {
		st := n.store.Stats()
		bytes, lag := n.writer.Backlog()
		s.Storage = client.StorageStatus{
			Path:     st.Path,
			Bytes:    st.DataBytes + st.LogBytes,
			LogBytes: st.LogBytes,
			Commits:  st.Commits,
			Lag:      lag,
			Backlog:  bytes,
		}
	}
	return s, nil
}
