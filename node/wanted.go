package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/internal/durable"
)

// everyKeyspace in a list of keyspaces stands for all that exist.
const everyKeyspace = "*"

// maxNamed bounds the names that a node may be told to hold, or that it left, so
// that its record fits into the directory.
const maxNamed = 256

// wishes are the keyspaces that a node is to hold: all but some, or some.
type wishes struct {
	All     bool
	Names   []string // ascending; beside All they say nothing
	Without []string // ascending; wanted in no case
}

func (w wishes) wants(name string) bool {
	if _, without := slices.BinarySearch(w.Without, name); without {
		return false
	}
	_, named := slices.BinarySearch(w.Names, name)
	return w.All || named || isSystem(name)
}

// wanted is what this node is to hold: what the configuration says, and what was
// joined and left since, which outlives a restart. Safe for concurrent use.
type wanted struct {
	path string // of the file; empty: nothing is kept

	mu         sync.Mutex // protects the fields below
	configured wishes
	since      changes
	now        wishes // of the two above
}

// changes are what was joined and left by command, ascending.
type changes struct {
	Joined []string `json:"joined,omitempty"`
	Left   []string `json:"left,omitempty"`
}

// newWanted begins with the configured names and what the file at path says was
// joined and left since.
func newWanted(configured []string, path string) (*wanted, error) {
	w := &wanted{path: path}
	w.configured.All = slices.Contains(configured, everyKeyspace)
	for _, name := range configured {
		if name != everyKeyspace {
			w.configured.Names = include(w.configured.Names, name)
		}
	}
	if path != "" {
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &w.since)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read joined keyspaces: %s: %w", path, err)
		}
		slices.Sort(w.since.Joined)
		slices.Sort(w.since.Left)
	}
	w.update()
	return w, nil
}

// update brings now up to date. Called with mu held.
func (w *wanted) update() {
	w.now = wishes{All: w.configured.All, Without: slices.Clone(w.since.Left)}
	for _, names := range [][]string{w.configured.Names, w.since.Joined} {
		for _, name := range names {
			if _, left := slices.BinarySearch(w.since.Left, name); !left {
				w.now.Names = include(w.now.Names, name)
			}
		}
	}
}

func (w *wanted) wants(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now.wants(name)
}

// snapshot may be read only.
func (w *wanted) snapshot() wishes {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// hold makes name wanted, unless it was left, until the end of the process.
func (w *wanted) hold(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.configured.Names = include(slices.Clone(w.configured.Names), name)
	w.update()
}

// join makes name wanted from now on.
func (w *wanted) join(name string) error {
	return w.change(func(c *changes) {
		c.Joined, c.Left = include(c.Joined, name), exclude(c.Left, name)
	})
}

// leave makes name unwanted from now on.
func (w *wanted) leave(name string) error {
	return w.change(func(c *changes) {
		c.Joined, c.Left = exclude(c.Joined, name), include(c.Left, name)
	})
}

// change applies f, and keeps the outcome on disk first.
func (w *wanted) change(f func(*changes)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := changes{slices.Clone(w.since.Joined), slices.Clone(w.since.Left)}
	f(&next)
	if len(next.Joined)+len(next.Left) > maxNamed {
		return fmt.Errorf("%w: more than %d keyspaces joined and left by command", client.ErrTooLarge, maxNamed)
	}
	if w.path != "" {
		b, err := json.Marshal(next)
		if err == nil {
			err = durable.ReplaceFile(w.path, append(b, '\n'))
		}
		if err != nil {
			return fmt.Errorf("write joined keyspaces: %w", err)
		}
	}
	w.since = next
	w.update()
	return nil
}

// include adds name to an ascending list.
func include(list []string, name string) []string {
	i, found := slices.BinarySearch(list, name)
	if found {
		return list
	}
	return slices.Insert(list, i, name)
}

// exclude takes name out of an ascending list.
func exclude(list []string, name string) []string {
	i, found := slices.BinarySearch(list, name)
	if !found {
		return list
	}
	return slices.Delete(list, i, i+1)
}
