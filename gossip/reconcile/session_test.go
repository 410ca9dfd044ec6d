package reconcile

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

const testSeed = 0x5eed

// A site is a replica, its trie, and its sessions, driven as the replicator
// drives them.
type site struct {
	cells    *crdt.MapCells
	replica  *crdt.Replica
	trie     *Trie
	sum      *ClockSum
	sessions []*Session
	hlc      crdt.HLC
}

func newSite(inc crdt.Inc) *site {
	cells, clock := crdt.NewMapCells(), crdt.NewClock()
	return &site{
		cells:   cells,
		replica: crdt.NewReplica(crdt.State{Inc: inc, Cells: cells, Clock: clock}),
		trie:    NewTrie(testSeed),
		sum:     NewClockSum(testSeed, clock),
	}
}

// sync consumes the replica's changes.
func (s *site) sync() {
	ch := s.replica.Changes()
	for _, c := range ch.Added {
		s.trie.Insert(c)
		for _, session := range s.sessions {
			session.Added(c.Dot)
		}
	}
	for _, c := range ch.Removed {
		if !s.trie.Remove(c) {
			panic("removed a cell that was not there")
		}
	}
	for _, inc := range ch.Clock {
		s.sum.Update(inc, s.replica.Clock().Entry(inc))
	}
	ch.Reset()
}

func (s *site) snapshot() Snapshot {
	return Snapshot{Data: s.trie.Snapshot(), Clock: s.replica.Clock().Clone(), Pending: s.replica.Pending()}
}

func (s *site) root() Root { return Root{s.trie.Root(), s.sum.Root()} }

func (s *site) put(key, value string) *crdt.Op {
	s.hlc++
	ops, err := s.replica.Put(crdt.Write{Key: key, Kind: crdt.KindRegister, Value: []byte(value), HLC: s.hlc})
	if err != nil {
		panic(err)
	}
	s.sync()
	return ops[0]
}

func (s *site) delete(key string) []*crdt.Op {
	s.hlc++
	ops := s.replica.Delete(key, s.hlc)
	s.sync()
	return ops
}

func (s *site) apply(op *crdt.Op) {
	s.replica.Apply(op)
	s.sync()
}

func (s *site) step(session *Session, payload []byte) error {
	if err := session.Step(payload); err != nil {
		return err
	}
	s.settle(session)
	return nil
}

// settle takes what a session provides, and its end.
func (s *site) settle(session *Session) {
	for _, c := range session.TakeProvided() {
		s.replica.Provide(c)
		s.sync()
	}
	if known, lacks, ok := session.Concluded(); ok {
		s.replica.Conclude(known, lacks)
		s.sync()
	}
}

func (s *site) next(session *Session, limit int) ([]byte, bool) {
	payload, ok := session.NextMessage(nil, limit)
	s.settle(session)
	return payload, ok
}

func (s *site) open(id uint64) *Session {
	session := Open(id, testSeed, s.snapshot())
	s.sessions = append(s.sessions, session)
	return session
}

func (s *site) accept(id uint64) *Session {
	session := Accept(id, testSeed, s.snapshot())
	s.sessions = append(s.sessions, session)
	return session
}

func (s *site) close(session *Session) {
	s.sessions = slices.DeleteFunc(s.sessions, func(x *Session) bool { return x == session })
}

// fatal is what tests of testing and rapid have in common.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// run reconciles a and b at once, nothing else happening.
func run(t fatal, a, b *site) (sa, sb *Session) {
	t.Helper()
	const id = 7
	sa = a.open(id)
	sb = b.accept(id)
	defer a.close(sa)
	defer b.close(sb)
	for idle := 0; idle < 2; {
		idle++
		for {
			m, ok := a.next(sa, 64<<10)
			if !ok {
				break
			}
			idle = 0
			if err := b.step(sb, m); err != nil {
				t.Fatalf("responder: %v", err)
			}
		}
		for {
			m, ok := b.next(sb, 64<<10)
			if !ok {
				break
			}
			idle = 0
			if err := a.step(sa, m); err != nil {
				t.Fatalf("initiator: %v", err)
			}
		}
	}
	if !sa.Done() || !sb.Done() {
		t.Fatalf("stuck: initiator %v, responder %v", sa.Done(), sb.Done())
	}
	return sa, sb
}

// sameState checks that two sites hold the same, by full comparison.
func sameState(t fatal, a, b *site) {
	t.Helper()
	if !a.replica.Clock().Equal(b.replica.Clock()) {
		t.Fatalf("clocks differ")
	}
	if !slices.Equal(a.replica.Pending(), b.replica.Pending()) {
		t.Fatalf("pending deaths differ: %v, %v", a.replica.Pending(), b.replica.Pending())
	}
	if x, y := slices.Collect(dots(a.cells.All())), slices.Collect(dots(b.cells.All())); !slices.Equal(x, y) {
		t.Fatalf("live cells differ: %d, %d", len(x), len(y))
	}
	if a.root() != b.root() {
		t.Fatalf("roots differ: %v, %v", a.root(), b.root())
	}
}

func dots(cells iter.Seq[*crdt.Cell]) iter.Seq[crdt.Dot] {
	return func(yield func(crdt.Dot) bool) {
		for c := range cells {
			if !yield(c.Dot) {
				return
			}
		}
	}
}

func TestSessionBothWays(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 5, 30, 300, 5000} {
		a, b := newSite(1), newSite(2)
		for i := range n {
			op := a.put(fmt.Sprint("k", i), "v")
			if r.IntN(3) > 0 {
				b.apply(op)
			}
			if r.IntN(4) == 0 {
				b.put(fmt.Sprint("k", r.IntN(n)), "w")
			}
			if r.IntN(6) == 0 {
				a.delete(fmt.Sprint("k", r.IntN(n)))
			}
			if r.IntN(9) == 0 {
				for _, op := range b.delete(fmt.Sprint("k", r.IntN(n))) {
					if r.IntN(2) == 0 {
						a.apply(op)
					}
				}
			}
		}
		run(t, a, b)
		sameState(t, a, b)
	}
}
