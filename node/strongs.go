package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/replica"
	"github.com/meshkv/meshkv/gossip/mesh"
	"github.com/meshkv/meshkv/node/strong"
)

// serverRole is the role by which nodes know each other as servers.
const serverRole = "server"

// strongs is what a node knows of strong keyspaces, and its host if it is a server. Safe for
// concurrent use.
type strongs struct {
	host    atomic.Pointer[host.Host]       // nil: this node is no server
	dir     string                          // of the host, if it is to go with the node
	entries *xsync.Map[string, host.Entry]  // by name; removed ones as well
	spaces  *xsync.Map[string, *localSpace] // by name

	mu      sync.Mutex // protects the fields below
	handles map[string]client.StrongHandle
	closed  bool
	states  map[string]liveness // by node
}

// A localSpace is a keyspace of which this node has a replica.
type localSpace struct {
	*strong.Space
	replica *replica.Replica
}

// liveness is since when a node is alive, or is not, as it was noticed.
type liveness struct {
	alive bool
	since time.Time
}

func newStrongs() *strongs {
	return &strongs{
		entries: xsync.NewMap[string, host.Entry](), spaces: xsync.NewMap[string, *localSpace](),
		handles: make(map[string]client.StrongHandle), states: make(map[string]liveness),
	}
}

// learn takes note of an entry. It reports whether that was news.
func (s *strongs) learn(e host.Entry) (news bool) {
	s.entries.Compute(e.Keyspace.Name, func(had host.Entry, ok bool) (host.Entry, xsync.ComputeOp) {
		if ok && had.Revision >= e.Revision {
			return had, xsync.CancelOp
		}
		news = true
		return e, xsync.UpdateOp
	})
	if h := s.host.Load(); news && h != nil {
		h.Learn(e)
	}
	return news
}

// is reports whether there is a strong keyspace of that name.
func (s *strongs) is(name string) bool {
	e, ok := s.entries.Load(name)
	return ok && !e.Keyspace.Removed
}

// local is the keyspace as this node's replica serves it, if it has one.
func (s *strongs) local(name string) (*strong.Space, bool) {
	h := s.host.Load()
	if h == nil {
		return nil, false
	}
	r, ok := h.Replica(name)
	if !ok {
		s.spaces.Delete(name)
		return nil, false
	}
	if !r.Serves() {
		return nil, false
	}
	if l, ok := s.spaces.Load(name); ok && l.replica == r {
		return l.Space, true
	}
	l := &localSpace{strong.New(name, r), r}
	s.spaces.Store(name, l)
	return l.Space, true
}

// openHost makes this node a server.
func (n *Node) openHost() (err error) {
	dir := n.cfg.DataDir
	if n.writer == nil {
		if dir, err = os.MkdirTemp("", "meshkv-strong-"); err != nil {
			return fmt.Errorf("%w: %w", ErrDataDir, err)
		}
		n.strongs.dir = dir
	}
	h, err := host.Open(host.Config{
		Name: n.cfg.Name, Zone: n.cfg.Zone, Dir: filepath.Join(dir, "strong"),
		Listener:  &meshListener{conns: n.mesh.ServerConns(), addr: meshAddr(n.MeshAddr()), closed: make(chan struct{})},
		Dial:      func(ctx context.Context, node string) (net.Conn, error) { return n.mesh.DialServer(ctx, node) },
		Alive:     n.aliveSince,
		Bootstrap: n.cfg.BootstrapServers,
		LogStore:  logstore.Kind(n.cfg.LogStore),
		Publish:   n.publishStrong,
		Failed:    func(err error) { n.cancel(fmt.Errorf("%w: strong keyspaces: %w", ErrDataDir, err)) },
		Logger:    n.log,
	})
	if err != nil {
		n.removeStrongDir()
		return fmt.Errorf("%w: strong keyspaces: %w", ErrDataDir, err)
	}
	n.strongs.host.Store(h)
	n.strongs.entries.Range(func(_ string, e host.Entry) bool { // what came before
		h.Learn(e)
		return true
	})
	return nil
}

func (n *Node) removeStrongDir() {
	if n.strongs.dir == "" {
		return
	}
	if err := os.RemoveAll(n.strongs.dir); err != nil {
		n.log.Warn("temporary directory not removed", "err", err)
	}
}

// closeStrongs ends sessions and then the host, whose leaderships go to others.
func (n *Node) closeStrongs() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	s := n.strongs
	s.mu.Lock()
	handles := s.handles
	s.handles, s.closed = nil, true
	s.mu.Unlock()
	var work sync.WaitGroup
	for _, h := range handles {
		work.Go(func() {
			if err := h.Close(ctx); err != nil {
				n.log.Debug("sessions left to their end", "keyspace", h.Name(), "err", err)
			}
		})
	}
	work.Wait()
	h := s.host.Load()
	if h == nil {
		return
	}
	if err := h.Close(ctx); err != nil {
		n.log.Warn("strong keyspaces closed with an error", "err", err)
	}
	n.removeStrongDir()
}

// aliveSince is what membership says of a node, and since when it was noticed.
func (n *Node) aliveSince(name string) (bool, time.Time) {
	alive := name == n.cfg.Name || slices.ContainsFunc(n.mesh.Members(), func(m mesh.Member) bool {
		return m.Name == name && (m.Status == mesh.StatusAlive || m.Status == mesh.StatusSuspect)
	})
	s := n.strongs
	s.mu.Lock()
	defer s.mu.Unlock()
	st, known := s.states[name]
	if !known || st.alive != alive {
		st = liveness{alive, time.Now()}
		s.states[name] = st
	}
	return st.alive, st.since
}

// publishStrong puts an entry where every node learns of it.
func (n *Node) publishStrong(e host.Entry) {
	n.strongs.learn(e)
	ks := n.held(strongKeyspace).ks
	if had, err := n.readStrong(e.Keyspace.Name); err == nil && had.Revision >= e.Revision {
		return
	}
	b, err := host.MarshalEntry(e)
	if err == nil {
		_, err = ks.Put(context.Background(), e.Keyspace.Name, b, nil)
	}
	if err != nil {
		n.log.Debug("entry of a strong keyspace not published", "keyspace", e.Keyspace.Name, "err", err)
	}
}

// readStrong reads the newest of what was published of a strong keyspace.
func (n *Node) readStrong(name string) (newest host.Entry, err error) {
	e, err := n.held(strongKeyspace).ks.Get(context.Background(), name, &client.GetOptions{Siblings: true})
	if err != nil {
		return host.Entry{}, err
	}
	values := [][]byte{e.Value}
	for _, s := range e.Siblings {
		values = append(values, s.Value)
	}
	for _, v := range values {
		entry, perr := host.ParseEntry(v)
		if perr != nil || entry.Keyspace.Name != name {
			n.drops.add("strong_malformed")
			err = errors.Join(err, perr)
			continue
		}
		if entry.Revision > newest.Revision {
			newest = entry
		}
	}
	if newest.Revision > 0 {
		err = nil
	}
	return newest, err
}

// recallStrongs learns of the strong keyspaces that were known before a restart. It comes before the
// first call: a put to one that is not known makes an eventual keyspace of that name, and is
// acknowledged there.
func (n *Node) recallStrongs() {
	for e, err := range n.held(strongKeyspace).ks.List(context.Background(), "", &client.ListOptions{KeysOnly: true}) {
		if err != nil {
			break // the context does not end, and there is no other
		}
		if entry, err := n.readStrong(e.Key); err == nil {
			n.strongs.learn(entry)
		}
	}
}

// watchStrongs learns of strong keyspaces.
func (n *Node) watchStrongs(ctx context.Context) {
	n.watchSystem(ctx, strongKeyspace, func(ev client.Event) {
		if ev.Type != client.EventPut {
			return
		}
		if e, err := n.readStrong(ev.Entry.Key); err == nil && n.strongs.learn(e) {
			n.log.Debug("strong keyspace learned", "keyspace", e.Keyspace.Name, "revision", e.Revision)
		}
	})
}

// strongHolders are the other nodes that have a replica of a strong keyspace.
func (n *Node) strongHolders(e host.Entry) (all []holder) {
	for _, m := range n.mesh.Members() {
		if m.Name == n.cfg.Name || m.Inc == 0 || m.Status == mesh.StatusLeft {
			continue
		}
		for _, r := range e.Keyspace.Members {
			if r.Server == m.Name {
				all = append(all, holder{m.Name, m.Zone, m.Status == mesh.StatusAlive || m.Status == mesh.StatusSuspect, m.RTT})
			}
		}
	}
	return all
}

// servers are the other nodes with that role.
func (n *Node) servers() (names []string) {
	for _, m := range n.mesh.Members() {
		if m.Name != n.cfg.Name && slices.Contains(m.Roles, serverRole) && (m.Status == mesh.StatusAlive || m.Status == mesh.StatusSuspect) {
			names = append(names, m.Name)
		}
	}
	return names
}

// strongInfos are the strong keyspaces, as far as this node knows. What one holds is told only
// where there is a replica of it.
func (n *Node) strongInfos() (infos []client.KeyspaceInfo) {
	n.strongs.entries.Range(func(name string, e host.Entry) bool {
		if e.Keyspace.Removed || name == host.System {
			return true
		}
		info := client.KeyspaceInfo{Name: name, Mode: "strong"}
		if local, ok := n.strongs.local(name); ok {
			info, _ = local.Info(context.Background()) // never fails: it reads memory
		}
		for _, m := range e.Keyspace.Members {
			info.Members = append(info.Members, m.Server)
		}
		infos = append(infos, info)
		return true
	})
	return infos
}

// eventualSuffix names the eventual data of a keyspace that is strong: it came into being
// under the same name where nobody knew of the strong one.
const eventualSuffix = "~eventual"

// strongWarnings is what an operator should look at.
func (n *Node) strongWarnings() (all []string) {
	if h := n.strongs.host.Load(); h != nil {
		if err := h.Stuck(); err != nil {
			all = append(all, "strong keyspaces cannot begin: "+err.Error())
		}
	}
	for _, h := range n.allHeld() {
		if name := h.id.Name; !isSystem(name) && n.strongs.is(name) {
			all = append(all, fmt.Sprintf("keyspace %s is strong, and there is eventual data of that name: read it as %s%s, and remove it there", name, name, eventualSuffix))
		}
	}
	return all
}

// eventualName is the base of NAME~eventual, and whether name is one.
func eventualName(name string) (base string, ok bool) { return strings.CutSuffix(name, eventualSuffix) }
