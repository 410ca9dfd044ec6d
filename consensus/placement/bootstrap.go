package placement

import (
	"fmt"
	"slices"
)

// SystemKeyspace is the name of the keyspace whose group is the system group.
const SystemKeyspace = "_system"

// A Bootstrap is one server's part in the first start of the system group. It performs no
// I/O. Not safe for concurrent use.
//
// The servers on the list tell each other what they are, by Statement, until each has
// heard all. It then promises the set of names and disks that it heard, durably. Whoever
// knows that all have promised the same set begins the group with just that set as its
// configuration.
//
// A disk promises one set for ever, and a set begins only after each of its disks has
// promised it. So two sets that have a disk in common never both begin, whatever is lost,
// delayed or restarted; and where all servers are given the same list, a second set
// begins only after every disk of the first one is gone. It may be that none ever begins:
// when a server loses its disk after another one promised it. They say so then.
type Bootstrap struct {
	self    Identity
	list    []string // sorted
	promise *Promise // on the disk; nil: none yet
	started bool

	heard  map[string]Statement // of other servers on the list, the last one
	agreed map[string]bool      // of those, who told the same promise from the disk that it names
	// begun: a listed server began what this one promised; so all have promised it.
	begun bool
	// strangers are statements of servers that are not on the list, but have this server on
	// theirs. Beyond maxStrangers they are not kept: one is enough to refuse.
	strangers map[string]Statement
}

// Bounds of what is kept of other servers.
const (
	maxStrangers = 8
	maxList      = 64 // names on a list that is heard
)

// A Statement is what a server tells all others of itself, again and again.
type Statement struct {
	Identity
	List    []string `json:"list"` // sorted
	Promise *Promise `json:"promise,omitempty"`
	Started bool     `json:"started,omitempty"` // it began what it promised
}

// A Decision is what a server does next for the first start of the system group.
type Decision struct {
	// Promise is to be put on the disk, and only then given to Promised. If that fails the
	// node stops: what is on the disk is not known then.
	Promise *Promise
	// Start is to be begun: the system group with these voters, by those who are among
	// them. Then Began is called.
	Start *Promise
	// Waiting are the listed servers that were not heard yet, or have not promised yet.
	Waiting []string
	// Err says why nothing will go on unless an operator acts.
	Err error
}

// NewBootstrap begins, or goes on after a restart. list are the names that were configured,
// stored is the promise on the disk (nil: none), and started tells whether the system
// group began here, as its log shows. The errors match ErrListSize, ErrNotListed,
// ErrListsDiffer or ErrDamagedPromise; the list does not count any more once it started.
func NewBootstrap(self Identity, list []string, stored *Promise, started bool) (*Bootstrap, error) {
	list = slices.Sorted(slices.Values(list))
	switch {
	case stored != nil && !stored.valid(self), stored == nil && started:
		return nil, fmt.Errorf("%w: it is not of %v", ErrDamagedPromise, self)
	case started:
		list = stored.names()
	case !slices.Contains(list, self.Name):
		return nil, fmt.Errorf("%w: %s, %v", ErrNotListed, self.Name, list)
	}
	if err := checkList(list); err != nil {
		return nil, err
	}
	if stored != nil && !slices.Equal(stored.names(), list) {
		return nil, &ListError{Server: self.Name, Other: self.Name, ServerList: list, OtherList: stored.names()}
	}
	return &Bootstrap{
		self: self, list: list, promise: stored, started: started,
		heard: map[string]Statement{}, agreed: map[string]bool{}, strangers: map[string]Statement{},
	}, nil
}

// Statement is what to tell the others now.
func (b *Bootstrap) Statement() Statement {
	return Statement{Identity: b.self, List: b.list, Promise: b.promise, Started: b.started}
}

// Hear takes what another server said, in any order and any number of times. It keeps s.
// ErrDamagedPromise and ErrListSize: s is none that a server would make, and was ignored.
func (b *Bootstrap) Hear(s Statement) error {
	switch {
	case s.Promise != nil && !s.Promise.valid(s.Identity), s.Promise == nil && s.Started:
		return fmt.Errorf("%w: heard from %s", ErrDamagedPromise, s.Name)
	case len(s.List) > maxList:
		return fmt.Errorf("%w: heard from %s", ErrListSize, s.Name)
	case s.Name == b.self.Name:
		return nil // an echo, or of the disk that this server had before
	case !slices.Contains(b.list, s.Name):
		b.hearStranger(s)
		return nil
	}
	b.heard[s.Name] = s
	b.count(s)
	return nil
}

func (b *Bootstrap) hearStranger(s Statement) {
	if !slices.Contains(s.List, b.self.Name) {
		delete(b.strangers, s.Name)
	} else if _, known := b.strangers[s.Name]; known || len(b.strangers) < maxStrangers {
		b.strangers[s.Name] = s
	}
}

// count counts the promise in s, if it is the one of this server. That of a disk counts
// even if the disk was lost since: it can have promised nothing else.
func (b *Bootstrap) count(s Statement) {
	if b.promise != nil && s.Promise != nil && s.Promise.Cluster == b.promise.Cluster {
		b.agreed[s.Name] = true
		b.begun = b.begun || s.Started
	}
}

// Promised tells that p, of a Decision, is on the disk.
func (b *Bootstrap) Promised(p *Promise) {
	b.promise = p
	for _, s := range b.heard {
		b.count(s)
	}
}

// Began tells that the system group began here.
func (b *Bootstrap) Began() { b.started = true }

// Decide says what to do next. It is the same until Hear, Promised or Began is called.
func (b *Bootstrap) Decide() Decision {
	switch {
	case b.started:
		return Decision{}
	case b.promise != nil:
		return b.decidePromised()
	}
	if err := b.objection(); err != nil {
		return Decision{Err: err}
	}
	set := []Identity{b.self}
	var waiting []string
	for _, name := range b.others() {
		if s, ok := b.heard[name]; ok {
			set = append(set, s.Identity)
		} else {
			waiting = append(waiting, name)
		}
	}
	if len(waiting) > 0 {
		return Decision{Waiting: waiting}
	}
	return Decision{Promise: newPromise(set)}
}

// decidePromised is Decide after the promise.
func (b *Bootstrap) decidePromised() Decision {
	var waiting []string
	for _, name := range b.others() {
		if !b.agreed[name] {
			waiting = append(waiting, name)
		}
	}
	if len(waiting) == 0 || b.begun {
		return Decision{Start: b.promise}
	}
	for _, name := range waiting {
		s, ok := b.heard[name]
		if !ok {
			continue
		}
		if disk, _ := b.promise.disk(name); s.Disk != disk {
			return Decision{Waiting: waiting, Err: &DiskError{Server: name, Promised: disk, Present: s.Disk}}
		}
		if !slices.Equal(s.List, b.list) {
			return Decision{Waiting: waiting, Err: b.listError(s)}
		}
		if s.Promise != nil {
			return Decision{Waiting: waiting, Err: &PromiseError{Other: name, Mine: b.promise.Servers, Theirs: s.Promise.Servers}}
		}
	}
	return Decision{Waiting: waiting}
}

// objection is why this server promises nothing, as long as others say what they do.
func (b *Bootstrap) objection() error {
	for _, name := range b.others() {
		s, ok := b.heard[name]
		if !ok {
			continue
		}
		if !slices.Equal(s.List, b.list) {
			return b.listError(s)
		}
		if s.Promise == nil {
			continue
		}
		for _, promised := range s.Promise.Servers {
			present := b.heard[promised.Name].Identity
			if promised.Name == b.self.Name {
				present = b.self
			}
			if present.Name != "" && present != promised {
				return &DiskError{Server: promised.Name, Promised: promised.Disk, Present: present.Disk}
			}
		}
	}
	if len(b.strangers) > 0 {
		names := make([]string, 0, len(b.strangers))
		for name := range b.strangers {
			names = append(names, name)
		}
		return b.listError(b.strangers[slices.Min(names)])
	}
	return nil
}

func (b *Bootstrap) listError(s Statement) error {
	return &ListError{Server: b.self.Name, Other: s.Name, ServerList: b.list, OtherList: s.List}
}

// others are the listed servers without this one.
func (b *Bootstrap) others() []string {
	return slices.DeleteFunc(slices.Clone(b.list), func(name string) bool { return name == b.self.Name })
}

// System is the entry of the system group in its own catalog, as it begins. It is the same
// at all who promised p.
func (p *Promise) System() Keyspace {
	k := Keyspace{Name: SystemKeyspace, Gen: 1, Epoch: 1, Voters: len(p.Servers)}
	for _, s := range p.Servers {
		k.Initial = append(k.Initial, Server{Name: s.Name, Disk: s.Disk}.Replica())
	}
	return k.begun(k.Initial)
}
