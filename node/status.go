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
	"github.com/meshkv/meshkv/gossip/mesh"
	"github.com/meshkv/meshkv/keyspace"
)

// drops counts what was dropped, by reason. The reasons are constants of the
// code, so the map is bounded.
type drops struct {
	mu     sync.Mutex // protects counts
	counts map[string]uint64
}

func (d *drops) add(reason string) { d.addN(reason, 1) }

func (d *drops) addN(reason string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = make(map[string]uint64)
	}
	d.counts[reason] += uint64(n)
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
	if at := n.aloneSince.Load(); at != 0 && n.peers.Size() == 0 {
		if alone := time.Since(time.Unix(0, at)); alone > aloneFor {
			waits = append(waits, fmt.Sprintf("no link to any known node for %s: the view may be stale", alone.Round(time.Second)))
		}
	}
	if n.peers.Size() > 0 {
		for _, ks := range n.sorted() {
			if len(ks.Links()) > 0 && !ks.Met() { // with nobody else to hold it there is none to meet
				waits = append(waits, "keyspace "+ks.Name()+": "+filling(ks.Bootstrap()))
			}
		}
	}
	return waits
}

// aloneFor is how old the view of the others may be before a node that lost all
// of them says that it is not ready (F6).
const aloneFor = 30 * time.Second

// noteAlone keeps aloneSince up to date.
func (n *Node) noteAlone(now time.Time) {
	alone := n.peers.Size() == 0 && slices.ContainsFunc(n.mesh.Members(), func(m mesh.Member) bool {
		return m.Name != n.cfg.Name && m.Inc != 0 && m.Status != mesh.StatusLeft
	})
	switch {
	case !alone:
		n.aloneSince.Store(0)
	case n.aloneSince.Load() == 0:
		n.aloneSince.Store(now.UnixNano())
	}
}

// filling says how far a keyspace is that has not met a peer yet.
func filling(b gossip.Bootstrap) string {
	switch {
	case !b.Running:
		return "not synchronised with a peer yet"
	case b.Peer == "":
		return fmt.Sprintf("%d cells to come, no peer has begun yet", b.Total)
	}
	return fmt.Sprintf("%d of %d cells from %s", b.Done, b.Total, keyspace.PeerName(b.Peer))
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
		Storage:  n.storageStatus(),
	}
	s.Ready = len(s.NotReady) == 0
	for _, m := range members {
		s.Members[m.Status]++
	}
	all := n.sorted()
	for _, ks := range all {
		s.Keyspaces = append(s.Keyspaces, ks.Status())
	}
	s.Strong = n.strongStatuses(time.Now())
	s.Links, s.Clock = n.linkStatuses(all)
	s.Warnings = n.Warnings()
	return s, nil
}

// linkStatuses describes the links over all keyspaces, and the clocks at their
// other ends.
func (n *Node) linkStatuses(all []*keyspace.Keyspace) (links []client.LinkStatus, clock client.ClockStatus) {
	at := make(map[gossip.PeerID]int)
	for _, p := range n.allPeers() {
		at[p.id] = len(links)
		links = append(links, client.LinkStatus{
			Peer:      p.link.Peer.Name,
			Addr:      p.link.Addr(),
			RTT:       p.link.RTT(),
			SentBytes: uint64(p.link.SentBytes()),
			RecvBytes: uint64(p.link.RecvBytes()),
			Roles:     make(map[string]int),
		})
	}
	offsets := make(map[gossip.PeerID]time.Duration)
	for _, ks := range all {
		for _, l := range ks.Links() {
			if l.Heard {
				offsets[l.Peer] = l.ClockOffset
			}
			i, ok := at[l.Peer]
			if !ok {
				continue // ended, or begun since
			}
			links[i].Queued += l.QueuedOps
			links[i].QueuedBytes += l.QueuedBytes
			links[i].Roles[l.Role.String()]++
			links[i].InSync += count(l.InSync)
			links[i].Behind += count(l.Behind)
			links[i].Sessions += count(l.Session)
		}
	}
	clock.Neighbours = len(offsets)
	clock.Offset, _ = gossip.ClockOff(slices.Collect(maps.Values(offsets)), keyspace.MaxClockDrift/2)
	return links, clock
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (n *Node) storageStatus() client.StorageStatus {
	if n.writer == nil {
		return client.StorageStatus{}
	}
	st := n.store.Stats()
	bytes, lag := n.writer.Backlog()
	return client.StorageStatus{
		Path:     st.Path,
		Bytes:    st.DataBytes + st.LogBytes,
		LogBytes: st.LogBytes,
		Commits:  st.Commits,
		Lag:      lag,
		Backlog:  bytes,
	}
}
