package storage

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// WriterOptions tune a Writer. The zero value is usable.
type WriterOptions struct {
	// MaxBacklog is how many bytes may wait before Overloaded says so. The
	// writer itself refuses nothing. Default 64 MiB.
	MaxBacklog int64
	// MaxLag is how much work, in time at the rate of the latest commits, may wait
	// before Overloaded says so. A backlog of a sixteenth of MaxBacklog is always
	// allowed, so that a disk that stalls under light load is waited for and one
	// that does not keep up is not. Default 500 ms.
	MaxLag time.Duration
	// Linger is the shortest time from one commit's start to the next while
	// nobody waits for either. It trades persistence lag for the cost of an
	// fsync; a waiter cuts it short. Default 2 ms; negative: none.
	Linger time.Duration
}

const (
	defaultMaxBacklog = 64 << 20
	smallBacklog      = 16 // the part of MaxBacklog below which MaxLag does not count
	defaultMaxLag     = 500 * time.Millisecond
	ratedBatch        = 256 << 10 // bytes of a batch whose time says something about the rate
	defaultLinger     = 2 * time.Millisecond
)

// A Writer gathers changes of many keyspaces and commits whatever there is, as
// one batch, as soon as the commit before is done: the slower the disk, the
// larger the batches. Everything of one Append is in one batch, and batches are
// committed in the order in which they were gathered.
type Writer struct {
	store  Store
	opts   WriterOptions
	wake   chan struct{} // of capacity 1: something was gathered
	hurry  chan struct{} // of capacity 1: somebody waits
	bytes  atomic.Int64  // gathered or in flight
	limit  atomic.Int64  // of bytes, at which the writer is overloaded
	oldest atomic.Int64  // unix ns of the oldest change in flight, or 0

	mu    sync.Mutex // protects the fields below
	open  *accumulator
	spare *accumulator // emptied, or nil while its batch is in flight
	err   error        // why nothing more is taken; nil while the writer works
}

// A commit is one batch on its way; done is closed when err is final.
type commit struct {
	done   chan struct{}
	err    error
	waited atomic.Bool // somebody asked for it
}

func newCommit() *commit { return &commit{done: make(chan struct{})} }

// A Ticket stands for the commit that holds a change. The zero Ticket is of a
// change that needs none.
type Ticket struct{ commit *commit }

// Done is closed when the outcome is known; nil for the zero Ticket.
func (t Ticket) Done() <-chan struct{} {
	if t.commit == nil {
		return nil
	}
	return t.commit.done
}

// NewWriter is a writer in front of store, which must have been loaded. Nothing
// is committed until Run is called.
func NewWriter(store Store, o *WriterOptions) *Writer {
	w := &Writer{
		store: store,
		wake:  make(chan struct{}, 1),
		hurry: make(chan struct{}, 1),
		open:  newAccumulator(),
		spare: newAccumulator(),
	}
	if o != nil {
		w.opts = *o
	}
	if w.opts.MaxBacklog == 0 {
		w.opts.MaxBacklog = defaultMaxBacklog
	}
	w.limit.Store(w.opts.MaxBacklog)
	if w.opts.MaxLag == 0 {
		w.opts.MaxLag = defaultMaxLag
	}
	if w.opts.Linger == 0 {
		w.opts.Linger = defaultLinger
	}
	return w
}

// Append takes over what changed in a keyspace: ch, and the entries that it
// names of clock. It must be called under the lock of the keyspace, in the order
// of the changes; it keeps neither ch nor clock, and never waits for the disk.
// The error says that the writer has ended, with the error of Run.
func (w *Writer) Append(keyspace string, ch *crdt.Changes, clock *crdt.Clock) (Ticket, error) {
	if ch.Empty() {
		return Ticket{}, nil
	}
	w.mu.Lock()
	if w.err != nil {
		defer w.mu.Unlock()
		return Ticket{}, w.err
	}
	a := w.open
	n := a.keyspace(keyspace).add(ch, clock)
	a.bytes += n
	first := a.first()
	t := Ticket{a.commit}
	w.mu.Unlock()

	w.bytes.Add(n)
	if first {
		signal(w.wake)
	}
	return t, nil
}

// Drop takes a keyspace out of the store as a whole. What is appended under its
// name afterwards begins it anew. Errors are those of Append.
func (w *Writer) Drop(keyspace string) (Ticket, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return Ticket{}, w.err
	}
	w.open.keyspace(keyspace).drop()
	if w.open.first() {
		signal(w.wake)
	}
	return Ticket{w.open.commit}, nil
}

// Bound raises the persisted bound of the hybrid logical clock to h. If the
// writer has ended, waiting for the ticket gives the error.
func (w *Writer) Bound(h crdt.HLC) Ticket {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		c := newCommit()
		c.err = w.err
		close(c.done)
		return Ticket{c}
	}
	w.open.bound = max(w.open.bound, h)
	if w.open.first() {
		signal(w.wake)
	}
	return Ticket{w.open.commit}
}

// Wait returns when the change of t is on disk, or with the error of its commit,
// whose outcome is then unknown, or with the error of ctx.
func (w *Writer) Wait(ctx context.Context, t Ticket) error {
	if t.commit == nil {
		return nil
	}
	if t.commit.waited.CompareAndSwap(false, true) {
		signal(w.hurry)
	}
	select {
	case <-t.commit.done:
		return t.commit.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Backlog is how many bytes are not on disk yet, and for how long the oldest of
// them has waited.
func (w *Writer) Backlog() (bytes int64, lag time.Duration) {
	bytes = max(0, w.bytes.Load()) // a moment below 0: an Append counts after it has let go
	if at := w.oldest.Load(); at != 0 {
		return bytes, time.Since(time.Unix(0, at))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.open.empty {
		lag = time.Since(w.open.since)
	}
	return bytes, lag
}

// Overloaded reports whether the backlog is beyond its bound, in bytes or in the
// time that it will take, so that a new write should be refused, or wait, before
// it is made. It costs two atomic loads.
func (w *Writer) Overloaded() bool { return w.bytes.Load() >= w.limit.Load() }

// rate adapts the bound of the backlog to what the latest commit achieved.
func (w *Writer) rate(bytes int64, took time.Duration) {
	if bytes < ratedBatch || took <= 0 {
		return
	}
	fits := int64(float64(bytes) * float64(w.opts.MaxLag) / float64(took))
	limit := (w.limit.Load() + fits) / 2
	w.limit.Store(min(max(limit, w.opts.MaxBacklog/smallBacklog), w.opts.MaxBacklog))
}

// Run commits until ctx is done, then whatever is still there, and returns nil.
// If a commit fails it returns the error at once; everything that waits, and all
// later calls, get it too. It must be called once.
func (w *Writer) Run(ctx context.Context) error {
	commitCtx := context.WithoutCancel(ctx) // the last flush must outlive ctx
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
		}
		// The end is decided before the batch is taken, so that an Append that
		// came before the end is in this batch or the writer goes round again.
		ending := ctx.Err() != nil
		start := time.Now()
		a := w.take(ending)
		if a == nil {
			if ending {
				return nil
			}
			continue
		}
		if err := w.flush(commitCtx, a); err != nil {
			return err
		}
		if !ending {
			w.linger(ctx, start)
		}
	}
}

// take swaps the accumulators. If there is nothing to take at the end, the
// writer closes in the same step.
func (w *Writer) take(ending bool) *accumulator {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.open
	if a.empty {
		if ending {
			w.err = fmt.Errorf("writer: %w", ErrClosed)
		}
		return nil
	}
	w.oldest.Store(a.since.UnixNano())
	w.open, w.spare = w.spare, nil
	return a
}

// flush commits what a holds and tells everyone who waits for it.
func (w *Writer) flush(ctx context.Context, a *accumulator) error {
	c, bytes := a.commit, a.bytes
	start := time.Now()
	err := w.store.Commit(ctx, a.build())
	w.rate(bytes, time.Since(start))
	if err != nil {
		err = fmt.Errorf("commit: %w", err)
	}
	if err == nil {
		a.reset()
	}

	w.mu.Lock()
	if err == nil {
		w.spare = a
		w.bytes.Add(-bytes)
		w.oldest.Store(0)
	} else {
		w.err = err
	}
	next := w.open.commit
	w.mu.Unlock()

	c.err = err
	close(c.done)
	if err != nil { // what was gathered meanwhile will never be committed
		next.err = err
		close(next.done)
	}
	return err
}

// linger waits until Linger has passed since start, or somebody waits.
func (w *Writer) linger(ctx context.Context, start time.Time) {
	d := w.opts.Linger - time.Since(start)
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-w.hurry:
			if w.awaited() {
				return
			}
		}
	}
}

// awaited reports whether somebody waits for what is being gathered. The signal
// alone may be left over from a commit that is done.
func (w *Writer) awaited() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open.commit.waited.Load()
}

// signal leaves a mark in a channel of capacity 1 and never blocks.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
