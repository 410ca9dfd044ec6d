package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A life is what the catalog says of a keyspace: how often it was removed, and
// whether it has come into being since.
type life struct {
	Generation uint64 `json:"generation"`
	Removed    bool   `json:"removed,omitempty"`
	Mode       string `json:"mode,omitempty"` // empty: eventual
}

// merge is the later of two. Of one generation, the one that came into being
// again is the later. So the order of arrival does not matter, and an entry that
// was written without knowing a later one takes nothing back.
func (l life) merge(other life) life {
	switch {
	case other.Generation > l.Generation:
		return other
	case other.Generation == l.Generation:
		l.Removed = l.Removed && other.Removed
	}
	return l
}

// A catalog is what this node knows of the lives of keyspaces: from the keyspace
// of that name, and from the peers that hold them. Safe for concurrent use.
type catalog struct {
	mu    sync.Mutex // protects known
	known map[string]life
}

func newCatalog() *catalog { return &catalog{known: make(map[string]life)} }

// life of a keyspace, and whether it exists.
func (c *catalog) life(name string) (l life, exists bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, known := c.known[name]
	return l, known && !l.Removed
}

// removed reports whether the keyspace was removed, and has not come into being
// since.
func (c *catalog) removed(name string) bool {
	l, _ := c.life(name)
	return l.Removed
}

// learn takes note of what somebody knows.
func (c *catalog) learn(name string, told life) (l life, exists bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, known := c.known[name]; known {
		told = l.merge(told)
	}
	c.known[name] = told
	return told, !told.Removed
}

// enter puts what this node knows of a keyspace into the catalog of all. It is
// called without linkMu.
func (n *Node) enter(name string) error {
	l, _ := n.catalog.life(name)
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := n.held(catalogKeyspace).ks.Put(context.Background(), name, b, nil); err != nil {
		return fmt.Errorf("enter keyspace %s into the catalog: %w", name, err)
	}
	return nil
}

// readLife reads an entry of the catalog, siblings included.
func (n *Node) readLife(ctx context.Context, name string) (life, error) {
	e, err := n.held(catalogKeyspace).ks.Get(ctx, name, &client.GetOptions{Siblings: true})
	if err != nil {
		return life{}, err
	}
	var l life
	err = json.Unmarshal(e.Value, &l)
	for _, s := range e.Siblings {
		var other life
		if jerr := json.Unmarshal(s.Value, &other); jerr == nil {
			l = l.merge(other)
		}
	}
	return l, err
}

// watchCatalog opens and drops keyspaces as the catalog says.
func (n *Node) watchCatalog(ctx context.Context) {
	n.watchSystem(ctx, catalogKeyspace, func(ev client.Event) {
		if !n.heedSettings(ev) && ev.Type == client.EventPut {
			n.heedCatalog(ctx, ev.Entry.Key)
		}
	})
}

// heedCatalog takes note of one entry of the catalog.
func (n *Node) heedCatalog(ctx context.Context, name string) {
	if checkKeyspaceName(name) != nil || isSystem(name) {
		n.drops.add("catalog_malformed")
		return
	}
	l, err := n.readLife(ctx, name)
	if err != nil {
		n.drops.add("catalog_malformed")
		return
	}
	if l.Generation > 0 {
		n.tidySettings(keyspaceID{name, l.Generation - 1})
	}
	n.linkMu.Lock()
	defer n.linkMu.Unlock()
	n.follow(time.Now(), name, l)
}

// watchSystem calls each for every event of a keyspace of the system until ctx
// ends.
func (n *Node) watchSystem(ctx context.Context, name string, each func(client.Event)) {
	w, err := n.held(name).ks.Watch(ctx, "", nil)
	if err != nil {
		return // the node stops
	}
	defer w.Close()
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			return
		}
		each(ev)
	}
}

// completeCatalog enters the keyspaces that this node holds and the catalog
// lacks: those that were written before there was one, and those whose entry
// could not be written when they came into being.
func (n *Node) completeCatalog(ctx context.Context) {
	for _, h := range n.allHeld() {
		if isSystem(h.id.Name) || isMirror(h.id.Name) {
			continue
		}
		l, err := n.readLife(ctx, h.id.Name)
		if err == nil && (l.Generation > h.id.Gen || l.Generation == h.id.Gen && !l.Removed) {
			continue
		}
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return
		}
		if err := n.enter(h.id.Name); err != nil {
			n.log.Debug("catalog not complete", "keyspace", h.id.Name, "err", err)
			return
		}
	}
}

// RemoveKeyspace removes a keyspace at every node, for good: nodes that are away
// drop it when they return, and nothing of it comes back. Whoever writes to that
// name afterwards begins an empty one.
func (n *Node) RemoveKeyspace(ctx context.Context, name string) error {
	base, eventual := eventualName(name)
	if err := checkUserKeyspace(base); err != nil {
		return err
	}
	if n.strongs.is(base) && !eventual {
		return n.removeStrong(ctx, name)
	}
	name = base
	if n.draining.Load() {
		return client.ErrDraining
	}
	n.linkMu.Lock()
	l, exists := n.catalog.life(name)
	if !exists {
		n.linkMu.Unlock()
		return fmt.Errorf("keyspace %s: %w", name, client.ErrNotFound)
	}
	n.follow(time.Now(), name, life{Generation: l.Generation + 1, Removed: true, Mode: l.Mode})
	n.linkMu.Unlock()
	n.log.Info("keyspace removed", "keyspace", name, "generation", l.Generation)
	if err := n.enter(name); err != nil {
		return err
	}
	return n.forgetSettings(ctx, keyspaceID{name, l.Generation})
}

// checkUserKeyspace refuses what users may not change.
func checkUserKeyspace(name string) error {
	if isSystem(name) {
		return fmt.Errorf("%w: keyspace %s is the system's: it can only be read", client.ErrDenied, name)
	}
	return checkKeyspaceName(name)
}
