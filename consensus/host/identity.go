package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/internal/durable"
)

// ErrIdentity: the directory belongs to another server, or says too little.
var ErrIdentity = errors.New("identity of the server")

// identity is what a server must know of itself whatever else is lost: one that lost it
// takes another disk, and is another server to all groups. Safe for concurrent use.
type identity struct {
	path string

	mu  sync.Mutex // protects now
	now identityFile
}

// identityFile is the file, as JSON.
type identityFile struct {
	Name string `json:"name"`
	Disk string `json:"disk"`
	// Cluster is the id of the system group; empty until it has begun or was joined.
	Cluster string `json:"cluster,omitempty"`
	// System is the newest entry of the system group that was seen.
	System *Entry `json:"system,omitempty"`
	// Left are groups of which this server had a replica that was removed. It
	// never begins them again.
	Left []string `json:"left,omitempty"`
	// Stores says of which group the log and the snapshots are that are kept under a name; see
	// storeOf.
	Stores map[string]string `json:"stores,omitempty"`
	// Entries are those that the stores follow from, by keyspace. Older ones are not acted upon: they
	// come back when the catalog's log is replayed, or by gossip.
	Entries map[string]Entry `json:"entries,omitempty"`
	// Recoveries are those of which the catalog may not know yet, by store.
	Recoveries map[string]recovery `json:"recoveries,omitempty"`
	// LogStore is the kind that keeps the logs.
	LogStore logstore.Kind `json:"log_store"`
	// Bootstrap is the promise; see placement.Bootstrap.
	Bootstrap json.RawMessage `json:"bootstrap,omitempty"`
}

func (f identityFile) clone() identityFile {
	f.Left, f.Stores = slices.Clone(f.Left), maps.Clone(f.Stores)
	f.Entries, f.Recoveries = maps.Clone(f.Entries), maps.Clone(f.Recoveries)
	return f
}

// maxLeft bounds Left. The oldest are forgotten: their entries are long superseded.
const maxLeft = 4096

// openIdentity reads the file in dir, and makes it if there is none.
func openIdentity(dir, name string) (*identity, error) {
	id := &identity{path: filepath.Join(dir, "server.json")}
	b, err := os.ReadFile(id.path)
	if errors.Is(err, fs.ErrNotExist) {
		id.now = identityFile{Name: name, Disk: fmt.Sprintf("%016x", rand.Uint64())}
		return id, id.change(func(*identityFile) {})
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if err := json.Unmarshal(b, &id.now); err != nil || id.now.Disk == "" {
		return nil, fmt.Errorf("%w: %s is damaged: move the directory of strong keyspaces aside; the server joins its groups again under a new identity", ErrIdentity, id.path)
	}
	if id.now.Name != name {
		return nil, fmt.Errorf("%w: the directory is that of server %s, not of %s: give the node its former name, or another directory", ErrIdentity, id.now.Name, name)
	}
	return id, nil
}

func (id *identity) get() identityFile {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.now.clone()
}

// change applies f, once it is on disk.
func (id *identity) change(f func(*identityFile)) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.now.clone()
	f(&next)
	b, err := json.MarshalIndent(next, "", "  ")
	if err == nil {
		err = durable.ReplaceFile(id.path, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	id.now = next
	return nil
}

// leave notes that the server has no replica of a group any more, if it had one.
func (id *identity) leave(group string) error {
	if id.left(group) {
		return nil
	}
	return id.change(func(f *identityFile) {
		f.Left = append(f.Left, group)
		f.Left = f.Left[max(0, len(f.Left)-maxLeft):]
	})
}

func (id *identity) left(group string) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return slices.Contains(id.now.Left, group)
}

// act notes the entry that is acted upon from now on.
func (id *identity) act(e Entry) error {
	id.mu.Lock()
	had := id.now.Entries[e.Keyspace.Name]
	id.mu.Unlock()
	if had.Revision >= e.Revision {
		return nil
	}
	return id.change(func(f *identityFile) {
		if f.Entries == nil {
			f.Entries = make(map[string]Entry)
		}
		f.Entries[e.Keyspace.Name] = e
	})
}

// recovering notes a recovery, with the name that its group has from then on.
func (id *identity) recovering(store, group string, r recovery) error {
	return id.change(func(f *identityFile) {
		if f.Recoveries == nil {
			f.Recoveries = make(map[string]recovery)
		}
		f.Stores[store], f.Recoveries[store] = group, r
	})
}

// recovered forgets a recovery, of which the catalog knows.
func (id *identity) recovered(store string) error {
	if _, ok := id.get().Recoveries[store]; !ok {
		return nil
	}
	return id.change(func(f *identityFile) { delete(f.Recoveries, store) })
}

// stored is the group of which there is something under a name.
func (id *identity) stored(store string) string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.now.Stores[store]
}

// store notes of which group there is something under a name; empty: nothing.
func (id *identity) store(store, group string) error {
	if id.stored(store) == group {
		return nil
	}
	return id.change(func(f *identityFile) {
		if f.Stores == nil {
			f.Stores = make(map[string]string)
		}
		if f.Stores[store] = group; group == "" {
			delete(f.Stores, store)
		}
	})
}

// server is this server as the catalog knows it.
func (id *identity) server(zone string) placement.Server {
	f := id.get()
	return placement.Server{Name: f.Name, Disk: f.Disk, Zone: zone}
}
