package reconcile

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

var (
	schedules = flag.Int("schedules", 300, "random schedules to run")
	firstSeed = flag.Uint64("seed", 1, "seed of the first schedule")
)

// tinyLimits make a few cells go through everything that many cells go through.
func tinyLimits(r *rand.Rand) limits {
	if r.IntN(4) == 0 {
		return defaultLimits()
	}
	return limits{
		queries: 1 + r.IntN(3), stack: 16, tasks: 1 + r.IntN(3), offered: 1 + r.IntN(4), flight: 4 + r.IntN(400),
		scan: 1 + r.IntN(8), dataList: uint64(1 + r.IntN(4)), clockList: uint64(r.IntN(3)), valuesOver: uint64(r.IntN(6)),
		islands: 1 + r.IntN(3),
	}
}

// full is a copy of all that a replica is, for the full-scan rule.
type full struct {
	live    map[crdt.Dot]bool
	clock   *crdt.Clock
	pending crdt.Dots
}

func (s *site) full() full {
	f := full{make(map[crdt.Dot]bool), s.replica.Clock().Clone(), s.replica.Pending()}
	for c := range s.cells.All() {
		f.live[c.Dot] = true
	}
	return f
}

// A link is one session under way, with what is in flight each way, and the
// full states that its snapshots were taken of.
type link struct {
	sites    [2]*site
	sessions [2]*Session // of the initiator and the responder, which may be nil yet
	start    [2]full
	flight   [2][][]byte // to the initiator, to the responder
	ended    [2]bool
	limit    int
}

// world is some sites, ops and sessions between them, and the dumb models.
type world struct {
	t       *testing.T
	r       *rand.Rand
	limits  limits
	sites   []*site
	order   [][]*crdt.Op
	links   []*link
	live    map[crdt.Dot]string // every dot that was put and that no op removed
	id      uint64
	nextInc crdt.Inc
	counts  map[string]int
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("-seed %d: %s", w.id, fmt.Sprintf(format, args...))
}

func newWorld(t *testing.T, seed uint64, sites int) *world {
	r := rand.New(rand.NewPCG(seed, 77))
	w := &world{t: t, r: r, limits: tinyLimits(r), live: make(map[crdt.Dot]string), id: seed, nextInc: 1, counts: make(map[string]int)}
	for range sites {
		w.sites = append(w.sites, newSite(w.nextInc))
		w.nextInc++
	}
	w.order = make([][]*crdt.Op, sites)
	return w
}

// spread puts an op of site from on its way to some of the others, coalescing
// it with older ones there now and then.
func (w *world) spread(from *site, op *crdt.Op) {
	for i, s := range w.sites {
		if s == from || w.r.IntN(3) == 0 {
			continue // lost: a session must make up for it
		}
		if n := len(w.order[i]); n > 0 && w.r.IntN(2) == 0 {
			k := w.r.IntN(n)
			if m := crdt.Coalesce(w.order[i][k], op); m != nil {
				w.order[i][k] = m
				continue
			}
		}
		w.order[i] = append(w.order[i], op)
	}
	for d := range op.Removes.All() {
		delete(w.live, d)
	}
	if op.Cell != nil {
		w.live[op.Dot] = op.Key
	}
}

func (w *world) write() {
	s := w.sites[w.r.IntN(len(w.sites))]
	key := fmt.Sprint("key", w.r.IntN(12))
	switch w.r.IntN(8) {
	case 0, 1:
		for _, op := range s.delete(key) {
			w.spread(s, op)
		}
	case 2:
		if w.r.IntN(4) == 0 {
			s.replica.Close(crdt.Inc(1 + w.r.IntN(int(w.nextInc)-1)))
			s.sync()
		}
	case 3:
		if w.r.IntN(3) == 0 { // as after a restart, with all state
			s.replica.Renew(w.nextInc)
			w.nextInc++
		}
	default:
		w.spread(s, s.put(key, "value"))
	}
}

// deliver gives a random op to a random site, and perhaps keeps it to be given
// again.
func (w *world) deliver() {
	i := w.r.IntN(len(w.sites))
	n := len(w.order[i])
	if n == 0 {
		return
	}
	k := w.r.IntN(n)
	op := w.order[i][k]
	if w.r.IntN(6) > 0 {
		w.order[i] = slices.Delete(w.order[i], k, k+1)
	}
	w.sites[i].apply(op)
}

func (w *world) open() {
	if len(w.links) >= 4 {
		return
	}
	i := w.r.IntN(len(w.sites))
	j := (i + 1 + w.r.IntN(len(w.sites)-1)) % len(w.sites)
	l := &link{sites: [2]*site{w.sites[i], w.sites[j]}, limit: []int{20, 100, 1000, 64 << 10}[w.r.IntN(4)]}
	a := l.sites[0]
	l.start[0] = a.full()
	l.sessions[0] = open(uint64(len(w.links)), testSeed, a.snapshot(), w.limits)
	a.sessions = append(a.sessions, l.sessions[0])
	w.links = append(w.links, l)
}

// move lets one side of a link send or receive one payload, and reports whether
// it did anything.
func (w *world) move(l *link, side int, send bool) bool {
	s, session := l.sites[side], l.sessions[side]
	if send {
		if session == nil {
			return false
		}
		m, ok := session.NextMessage(nil, l.limit)
		if ok {
			l.flight[1-side] = append(l.flight[1-side], m)
			w.counts["payloads"]++
		}
		return w.settle(l, side) || ok
	}
	if len(l.flight[side]) == 0 {
		return false
	}
	m := l.flight[side][0]
	l.flight[side] = l.flight[side][1:]
	if session == nil {
		if _, opens, err := Peek(m); err != nil || !opens {
			w.fatalf("first payload does not open: %v", err)
		}
		l.start[side] = s.full()
		session = accept(l.sessions[0].ID(), testSeed, s.snapshot(), w.limits)
		l.sessions[side] = session
		s.sessions = append(s.sessions, session)
	}
	if err := session.Step(m); err != nil {
		w.fatalf("side %d: %v", side, err)
	}
	w.settle(l, side)
	return true
}

// settle takes what a side of a link provides, and compares its end with the
// rule applied by a full scan of the peer's state at the start.
func (w *world) settle(l *link, side int) bool {
	s, session := l.sites[side], l.sessions[side]
	for _, c := range session.TakeProvided() {
		s.replica.Provide(c)
		s.sync()
		w.counts["provided"]++
	}
	known, lacks, ok := session.Concluded()
	if !ok {
		return false
	}
	if l.ended[side] {
		w.fatalf("side %d concluded twice", side)
	}
	l.ended[side] = true
	peer := l.start[1-side]
	if !known.Clock.Equal(peer.clock) {
		w.fatalf("side %d: wrong clock of the peer", side)
	}
	if !slices.Equal(known.Pending, peer.pending) {
		w.fatalf("side %d: wrong pending deaths of the peer: %v, not %v", side, known.Pending, peer.pending)
	}
	for d := range peer.live {
		if s.cells.ByDot(d) == nil && !s.replica.Clock().Contains(d) && !s.replica.IsPending(d) {
			w.fatalf("side %d: %v was not provided", side, d)
		}
	}
	cells := crdt.NewMapCells()
	for c := range s.cells.All() {
		cells.Add(c)
	}
	dumb := crdt.NewReplica(crdt.State{Inc: 1, Cells: cells, Clock: s.replica.Clock().Clone(), Pending: s.replica.Pending()})
	dumb.Conclude(crdt.Known{Clock: peer.clock, Pending: peer.pending}, func(yield func(crdt.Dot) bool) {
		for d := range dots(s.cells.All()) {
			if !peer.live[d] && !yield(d) {
				return
			}
		}
	})
	drops := 0
	s.replica.Conclude(known, func(yield func(crdt.Dot) bool) {
		for d := range lacks {
			if peer.live[d] {
				w.fatalf("side %d: %v is live at the peer, and said to be lacking", side, d)
			}
			if s.cells.ByDot(d) != nil {
				drops++
			}
			if !yield(d) {
				return
			}
		}
	})
	s.sync()
	w.counts["dropped"] += drops
	w.counts["concluded"]++
	if x, y := slices.Collect(dots(s.cells.All())), slices.Collect(dots(cells.All())); !slices.Equal(x, y) {
		w.fatalf("side %d: live cells %v, by full scan %v", side, x, y)
	}
	if !s.replica.Clock().Equal(dumb.Clock()) || !slices.Equal(s.replica.Pending(), dumb.Pending()) {
		w.fatalf("side %d: clock or pending deaths are not those of a full scan", side)
	}
	return true
}

func (w *world) close(l *link) {
	for side, s := range l.sites {
		s.close(l.sessions[side])
	}
	w.links = slices.DeleteFunc(w.links, func(x *link) bool { return x == l })
}

// done reports whether a link has nothing more to do.
func (l *link) done() bool {
	return l.ended[0] && l.ended[1] && l.sessions[0].Done() && l.sessions[1].Done()
}

// round moves one link by one step.
func (w *world) round() {
	if len(w.links) == 0 {
		return
	}
	l := w.links[w.r.IntN(len(w.links))]
	w.move(l, w.r.IntN(2), w.r.IntN(2) == 0)
	if l.done() {
		w.close(l)
	}
}

// finish runs a link to its end.
func (w *world) finish(l *link) {
	for !l.done() {
		moved := false
		for side := range 2 {
			for w.move(l, side, true) {
				moved = true
			}
			for w.move(l, side, false) {
				moved = true
			}
		}
		if !moved && !l.done() {
			w.fatalf("stuck session")
		}
	}
	w.close(l)
}

func (w *world) check() {
	for i, s := range w.sites {
		for c := range s.cells.All() {
			if s.replica.IsPending(c.Dot) {
				w.fatalf("site %d: %v is live and pending", i, c.Dot)
			}
		}
		if got, want := s.trie.Len(), s.cells.Len(); got != want {
			w.fatalf("site %d: %d cells in the trie, %d live", i, got, want)
		}
		if got, want := s.sum.Root(), ClockRoot(testSeed, s.replica.Clock()); got != want {
			w.fatalf("site %d: clock sum", i)
		}
	}
}

func (w *world) run(steps int) {
	for range steps {
		switch n := w.r.IntN(100); {
		case n < 12:
			w.write()
		case n < 20:
			w.deliver()
		case n < 24:
			w.open()
		case n < 25 && len(w.links) > 0 && w.r.IntN(2) == 0: // lost at any point
			w.close(w.links[w.r.IntN(len(w.links))])
			w.counts["aborted"]++
		default:
			w.round()
		}
	}
	for len(w.links) > 0 {
		w.finish(w.links[0])
	}
	w.check()
	// Quiescence: what is not delivered is lost; two rounds of all pairs settle it.
	for range 2 {
		for i := range w.sites {
			for j := range w.sites {
				if i != j {
					run(w.t, w.sites[i], w.sites[j])
				}
			}
		}
	}
	for _, s := range w.sites[1:] {
		sameState(w.t, w.sites[0], s)
	}
	w.check()
	live := slices.Collect(dots(w.sites[0].cells.All()))
	if want := slices.SortedFunc(maps.Keys(w.live), crdt.Dot.Compare); !slices.Equal(live, want) {
		w.fatalf("live %v, not every put less all that was removed %v", live, want)
	}
}

func TestSchedules(t *testing.T) {
	total := make(map[string]int)
	for i := range *schedules {
		w := newWorld(t, *firstSeed+uint64(i), 2+i%3)
		w.run(600)
		for k, n := range w.counts {
			total[k] += n
		}
	}
	t.Log(total)
	for _, k := range []string{"provided", "dropped", "concluded", "aborted"} {
		if total[k] == 0 {
			t.Errorf("no schedule had anything %s", k)
		}
	}
}
