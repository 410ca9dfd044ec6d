package storage

import (
	"cmp"
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// dirty is what is in the log and not in the bbolt file: the net change since
// the latest checkpoint began. A cell that came and went is in neither list.
type dirty struct {
	keyspaces map[string]*dirtyKeyspace
	hlcBound  crdt.HLC
	// replaying: the file may hold part of the set, from a checkpoint that was
	// cut short, so a cell that came and went is still to be dropped.
	replaying bool
}

type dirtyKeyspace struct {
	// reset: nothing of what the file has of the keyspace counts. It is deleted
	// before anything is written, once more if a checkpoint was cut short.
	reset   bool
	gone    bool                    // reset, and not begun anew: there is no such keyspace
	puts    map[crdt.Dot]*crdt.Cell // none of them is in the file
	drops   []crdt.Dot
	clock   map[crdt.Inc]crdt.Entry
	pending map[crdt.Dot]bool // true: added; false: dropped
}

func newDirty() *dirty { return &dirty{keyspaces: make(map[string]*dirtyKeyspace)} }

func (d *dirty) keyspace(name string) *dirtyKeyspace {
	ks := d.keyspaces[name]
	if ks == nil {
		ks = newDirtyKeyspace()
		d.keyspaces[name] = ks
	}
	return ks
}

func newDirtyKeyspace() *dirtyKeyspace {
	return &dirtyKeyspace{
		puts:    make(map[crdt.Dot]*crdt.Cell),
		clock:   make(map[crdt.Inc]crdt.Entry),
		pending: make(map[crdt.Dot]bool),
	}
}

// apply adds b, which is in the log.
func (d *dirty) apply(b *Batch) {
	d.hlcBound = max(d.hlcBound, b.HLCBound)
	for i := range b.Keyspaces {
		kb := &b.Keyspaces[i]
		ks := d.keyspace(kb.Name)
		if kb.Reset {
			*ks = *newDirtyKeyspace()
			ks.reset = true
		}
		ks.gone = kb.gone()
		for _, c := range kb.Put {
			ks.puts[c.Dot] = c
		}
		for _, dot := range kb.Drop {
			if _, ok := ks.puts[dot]; ok {
				delete(ks.puts, dot)
				if !d.replaying {
					continue
				}
			}
			if ks.reset {
				continue
			}
			ks.drops = append(ks.drops, dot)
		}
		for _, e := range kb.Clock {
			ks.clock[e.Inc] = e.Entry
		}
		for _, dot := range kb.PendingAdd {
			ks.pending[dot] = true
		}
		for _, dot := range kb.PendingDrop {
			ks.pending[dot] = false
		}
	}
}

// A cellChange is a cell to be put into the file, or one to be deleted from it.
type cellChange struct {
	dot  crdt.Dot
	cell *crdt.Cell // nil: delete
}

// changes are the changes of cells, ascending by dot, so that each page of the
// file is visited once.
func (ks *dirtyKeyspace) changes() []cellChange {
	list := make([]cellChange, 0, len(ks.puts)+len(ks.drops))
	for dot, c := range ks.puts {
		list = append(list, cellChange{dot, c})
	}
	for _, dot := range ks.drops {
		list = append(list, cellChange{dot: dot})
	}
	slices.SortFunc(list, func(a, b cellChange) int { // Dot.Compare, which is not inlined here
		switch {
		case a.dot.Inc != b.dot.Inc:
			return cmp.Compare(a.dot.Inc, b.dot.Inc)
		case a.dot.Seq < b.dot.Seq:
			return -1
		case a.dot.Seq > b.dot.Seq:
			return 1
		}
		return 0
	})
	return list
}
