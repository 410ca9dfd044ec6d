package keyspace

import (
	"runtime"
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

	// What the readers of one keyspace may take in one window for each processor, all of them
	// together, while there are many writes: they would take the time of the writers. The
	// share of one is not below minShare.
	windowEvents = 1000
	minShare     = 16
)

// A group is the watches of one prefix, with the numbers of the changes that concern them:
// so a watch of few keys does not look through the changes of all others. One goroutine
// at a time may add; readers take no lock.
type group struct {
	prefix  string
	room    uint64   // numbers that are kept, at most; a power of two
	watches []*watch // protected by the mutex of the keyspace
	size    atomic.Int32
	parked  atomic.Int32 // watches that wait
	count   atomic.Uint64
	numbers atomic.Pointer[groupNumbers]
}

// groupNumbers are those of change i at i modulo their count, a power of two.
type groupNumbers struct {
	first uint64 // change whose number was copied from a smaller one: those before are not known
	at    []atomic.Uint64
}

func (g *groupNumbers) of(i uint64) *atomic.Uint64 { return &g.at[i&uint64(len(g.at)-1)] }

// add notes that change n concerns the group. oldest is the oldest change that is held: the
// numbers of all that are held are kept, as far as there is room.
func (g *group) add(n, oldest uint64) {
	i := g.count.Load()
	nums := g.numbers.Load()
	if size := uint64(len(nums.at)); i >= size && size < g.room && nums.of(i).Load() >= oldest {
		grown := &groupNumbers{first: max(nums.first, i-size), at: make([]atomic.Uint64, 2*size)}
		for j := grown.first; j < i; j++ {
			grown.of(j).Store(nums.of(j).Load())
		}
		nums = grown
		g.numbers.Store(grown)
	}
	nums.of(i).Store(n)
	g.count.Store(i + 1)
}

// number is that of change i of the group; i < count. False: it is kept no more.
func (g *group) number(i uint64) (n uint64, ok bool) {
	nums := g.numbers.Load()
	n = nums.of(i).Load()
	// Looked at last: the one that takes its place is written before it is counted.
	return n, i >= nums.first && g.count.Load()-i < uint64(len(nums.at))
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
	for i = g.count.Load(); i > 0; i-- {
		switch before, known := g.number(i - 1); {
		case !known:
			return 0, false
		case before <= n:
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
	room    uint64         // of each group

	began atomic.Uint64 // windows
	share atomic.Int64  // events for each reader in the present one

	closed atomic.Bool
	stop   chan struct{} // closed with it
	wg     sync.WaitGroup

	mu       sync.Mutex // protects the fields below
	ready    []*watch   // to be woken: each once, here or in resting
	resting  []*watch   // to be ready when the window ends
	flushing bool       // a goroutine does that

	// Owned by that goroutine.
	spare  []*watch
	window time.Time // the beginning of the present window
	rounds int       // in it
	woken  int       // watches, in it
}

// A prefixLength is how many groups have a prefix of that length: a change is looked up once
// for each length.
type prefixLength struct{ length, groups int }

func newHub() *hub {
	h := &hub{room: maxNumbers, groups: make(map[string]*group), stop: make(chan struct{})}
	h.share.Store(windowEvents)
	return h
}

// enter puts w into the group of its prefix. Called with the mutex of the keyspace held.
func (h *hub) enter(w *watch) {
	g := h.groups[w.prefix]
	if g == nil {
		g = &group{prefix: w.prefix, room: h.room}
		g.numbers.Store(&groupNumbers{at: make([]atomic.Uint64, minNumbers)})
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
		if w.unpark() {
			if !w.due {
				w.due = true
				h.ready = append(h.ready, w)
			}
		}
	}
	h.start()
}

// rest has w woken at the end of the window.
func (h *hub) rest(w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !w.due {
		w.due = true
		h.resting = append(h.resting, w)
	}
	h.start()
}

// start has those who are ready woken. Called with h.mu held.
func (h *hub) start() {
	if h.flushing || len(h.ready)+len(h.resting) == 0 || h.closed.Load() {
		return
	}
	h.flushing = true
	h.wg.Go(h.flush)
}

// flush wakes those who are ready, until there are none.
func (h *hub) flush() {
	for {
		h.mu.Lock()
		ready := h.ready
		if len(ready) == 0 && len(h.resting) == 0 {
			h.flushing = false
			h.mu.Unlock()
			return
		}
		h.ready, h.spare = h.spare[:0], nil
		for _, w := range ready {
			w.due = false
		}
		h.mu.Unlock()
		for _, w := range ready {
			w.signal()
		}
		h.woken += len(ready)
		clear(ready)
		if cap(ready) <= 4096 {
			h.spare = ready[:0]
		}
		h.pace()
	}
}

// pace waits for the end of the window after many rounds in it, or for those who rest, who are
// ready then.
func (h *hub) pace() {
	h.mu.Lock()
	resting := len(h.resting) > 0
	h.mu.Unlock()
	now := time.Now()
	if h.rounds++; now.Sub(h.window) < wakeWindow && (resting || h.rounds >= wakesAtOnce) {
		t := time.NewTimer(wakeWindow - now.Sub(h.window))
		defer t.Stop()
		select {
		case <-t.C:
			now = time.Now()
		case <-h.stop:
			return
		}
	}
	if now.Sub(h.window) < wakeWindow {
		return
	}
	h.share.Store(max(minShare, windowEvents*int64(runtime.GOMAXPROCS(0))/int64(max(h.woken, 1))))
	h.began.Add(1)
	h.window, h.rounds, h.woken = now, 0, 0
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = append(h.ready, h.resting...)
	clear(h.resting)
	h.resting = h.resting[:0]
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
