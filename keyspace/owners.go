package keyspace

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/meshkv/meshkv/crdt"
)

// An Owner is what the node knows of one incarnation.
type Owner struct {
	Name  string
	State crdt.OwnerState
}

// Owners is the node's view of the incarnations that write, fed by its
// membership. An incarnation that it never met counts as failed, so that its
// ephemeral cells are hidden until it shows up. Safe for concurrent use.
type Owners struct {
	mu   sync.Mutex // serialises Set
	incs *xsync.Map[crdt.Inc, Owner]
	last atomic.Pointer[named] // the latest one to come alive
}

type named struct {
	inc  crdt.Inc
	name string
}

// NewOwners knows nobody.
func NewOwners() *Owners { return &Owners{incs: xsync.NewMap[crdt.Inc, Owner]()} }

// Get is what is known of inc.
func (o *Owners) Get(inc crdt.Inc) Owner {
	owner, ok := o.incs.Load(inc)
	if !ok {
		return Owner{State: crdt.OwnerFailed}
	}
	return owner
}

// Name of the node that inc is an incarnation of, or inc in hex.
func (o *Owners) Name(inc crdt.Inc) string {
	if l := o.last.Load(); l != nil && l.inc == inc {
		return l.name
	}
	owner, ok := o.incs.Load(inc)
	if !ok {
		return inc.String()
	}
	return owner.Name
}

// Set records what is known of inc and reports whether its state changed. A
// closed incarnation stays closed.
func (o *Owners) Set(inc crdt.Inc, owner Owner) (changed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, known := o.incs.Load(inc)
	if known && old.State == crdt.OwnerClosed {
		owner.State = crdt.OwnerClosed
	}
	o.incs.Store(inc, owner)
	if owner.State == crdt.OwnerAlive {
		// One place, set here and not by readers, who would fight for its line.
		o.last.Store(&named{inc, owner.Name})
	} else if l := o.last.Load(); l != nil && l.inc == inc {
		o.last.Store(nil)
	}
	return !known && owner.State != crdt.OwnerFailed || known && old.State != owner.State
}

// Alive are the names of the nodes with an incarnation that is alive, ascending.
func (o *Owners) Alive() (names []string) {
	o.incs.Range(func(_ crdt.Inc, owner Owner) bool {
		if owner.State == crdt.OwnerAlive {
			names = append(names, owner.Name)
		}
		return true
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// Named are the incarnations of the node called name.
func (o *Owners) Named(name string) (incs []crdt.Inc) {
	o.incs.Range(func(inc crdt.Inc, owner Owner) bool {
		if owner.Name == name {
			incs = append(incs, inc)
		}
		return true
	})
	return incs
}
