package keyspace

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	minNumbers = 8
	maxNumbers = 4096 // changes of one group that can be told apart from the others, at most

	// Waking readers one by one costs a writer more than its write. So more than wakesAtOnce
	// rounds within wakeWindow make those who are due after it wait for its end.
	wakeWindow  = time.Millisecond
	wakesAtOnce = 16
)

// A group is the watches of one prefix, with the numbers of the changes that concern them:
// so a watch of few keys does not look through the changes of all others. One goroutine
// at a time may add; readers take no lock.
type group struct {
	prefix  string
	watches []*watch // protected by the mutex of the keyspace
	size    atomic.Int32
	parked  atomic.Int32 // watches that wait
	count   atomic.Uint64
	numbers atomic.Pointer[[]atomic.Uint64] // of change i at i modulo their count, a power of two
}

// add notes that change n concerns the group. oldest is the oldest change that is held: the
// numbers of all that are held are kept, as far as there is room.
func (g *group) add(n, oldest uint64) {
	i := g.count.Load()
	nums := *g.numbers.Load()
	if size := uint64(len(nums)); i >= size && size < maxNumbers && nums[i&(size-1)].Load() >= oldest {
		grown := make([]atomic.Uint64, 2*size)
		for j := i - size; j < i; j++ {
			grown[j&(2*size-1)].Store(nums[j&(size-1)].Load())
		}
		nums = grown
		g.numbers.Store(&grown)
	}
	nums[i&uint64(len(nums)-1)].Store(n)
	g.count.Store(i + 1)
}

// number is that of change i of the group; i < count. False: it is kept no more.
func (g *group) number(i uint64) (n uint64, ok bool) {
	nums := *g.numbers.Load()
	n = nums[i&uint64(len(nums)-1)].Load()
	// Looked at last: the one that takes its place is written before it is counted.
	return n, g.count.Load()-i < uint64(len(nums))
}

// newest is how many changes there were, and the number of the last one.
func (g *group) newest() (count, n uint64) {
	for {
		if count = g.count.Load(); count == 0 {
			return 0, 0
		}
		if n, ok := g.number(count - 1); ok {
			return count, n
		}
	}
}

// since is the first change of the group behind change n of the log. False: not all that are
// behind it may be known. Called with the mutex of the keyspace held.
func (g *group) since(n uint64) (i uint64, ok bool) {
	nums := *g.numbers.Load()
	i = g.count.Load()
	for size := uint64(len(nums)); i > 0; i-- {
		if g.count.Load()-(i-1) > size {
			return 0, false
		}
		if nums[(i-1)&(size-1)].Load() <= n {
			return i, true
		}
	}
	return 0, false // the group is younger than n, or had no change before
}

// A hub knows which watches a change concerns, and wakes them.
type hub struct {
	// Protected by the mutex of the keyspace.
	groups  map[string]*group
	lengths []prefixLength // ascending

	closed atomic.Bool
	stop   chan struct{} // closed with it
	wg     sync.WaitGroup

	mu       sync.Mutex // protects the fields below
	ready    []*watch   // to be woken, each once
	flushing bool       // a goroutine does that

	// Owned by that goroutine.
	spare  []*watch
	window time.Time // the beginning of the present window
	rounds int       // in it
}

// A prefixLength is how many groups have a prefix of that length: a change is looked up once
// for each length.
type prefixLength struct{ length, groups int }

func newHub() *hub {
	return &hub{groups: make(map[string]*group), stop: make(chan struct{})}
}

// enter puts w into the group of its prefix. Called with the mutex of the keyspace held.
func (h *hub) enter(w *watch) {
	g := h.groups[w.prefix]
	if g == nil {
		g = &group{prefix: w.prefix}
		nums := make([]atomic.Uint64, minNumbers)
		g.numbers.Store(&nums)
		h.groups[w.prefix] = g
		i, found := h.length(len(w.prefix))
		if !found {
			h.lengths = slices.Insert(h.lengths, i, prefixLength{length: len(w.prefix)})
		}
		h.lengths[i].groups++
	}
	g.watches = append(g.watches, w)
	g.size.Add(1)
	w.group = g
}

// leave is the reverse of enter.
func (h *hub) leave(w *watch) {
	g := w.group
	g.watches = slices.DeleteFunc(g.watches, func(o *watch) bool { return o == w })
	if g.size.Add(-1) > 0 {
		return
	}
	delete(h.groups, g.prefix)
	i, _ := h.length(len(g.prefix))
	if h.lengths[i].groups--; h.lengths[i].groups == 0 {
		h.lengths = slices.Delete(h.lengths, i, i+1)
	}
}

func (h *hub) length(n int) (i int, found bool) {
	return slices.BinarySearchFunc(h.lengths, n, func(l prefixLength, n int) int { return l.length - n })
}

// touch tells those whose prefix key has of change n. Called with the mutex of the keyspace
// held, before the change is published: who sees the number of the newest change then
// sees all that came before it in the groups. It does not block.
func (h *hub) touch(key string, n, oldest uint64) {
	for _, l := range h.lengths {
		if l.length > len(key) {
			return
		}
		g := h.groups[key[:l.length]]
		if g == nil {
			continue
		}
		g.add(n, oldest)
		if g.parked.Load() > 0 {
			h.wake(g)
		}
	}
}

// wake has the parked watches of g woken.
func (h *hub) wake(g *group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range g.watches {
		if w.unpark() && !w.due {
			w.due = true
			h.ready = append(h.ready, w)
		}
	}
	if h.flushing || len(h.ready) == 0 || h.closed.Load() {
		return
	}
	h.flushing = true
	h.wg.Go(h.flush)
}

// flush wakes those who are ready, until there are none.
func (h *hub) flush() {
	for {
		h.mu.Lock()
		if len(h.ready) == 0 {
			h.flushing = false
			h.mu.Unlock()
			return
		}
		ready := h.ready
		h.ready, h.spare = h.spare[:0], nil
		for _, w := range ready {
			w.due = false
		}
		h.mu.Unlock()
		for _, w := range ready {
			w.signal()
		}
		clear(ready)
		if cap(ready) <= 4096 {
			h.spare = ready[:0]
		}
		h.pace()
	}
}

// pace waits for the end of the window after many rounds in it.
func (h *hub) pace() {
	now := time.Now()
	if now.Sub(h.window) >= wakeWindow {
		h.window, h.rounds = now, 0
	}
	if h.rounds++; h.rounds < wakesAtOnce {
		return
	}
	t := time.NewTimer(wakeWindow)
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.stop:
	}
}

// close wakes all watches, which then end. Called with the mutex of the keyspace held.
func (h *hub) close() {
	h.mu.Lock()
	first := !h.closed.Swap(true)
	h.mu.Unlock()
	if !first {
		return
	}
	close(h.stop)
	for _, g := range h.groups {
		for _, w := range g.watches {
			w.signal()
		}
	}
}

// wait returns once the hub, which is closed, does nothing any more.
func (h *hub) wait() { h.wg.Wait() }
