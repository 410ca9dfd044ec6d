package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
)

const (
	// batchBytes bounds the commands of one entry; a longer one goes alone.
	batchBytes = 256 << 10
	// queuedBytes bounds the commands that wait for an entry.
	queuedBytes = 32 << 20
)

// A batcher proposes the commands of many callers as few entries, one after the other: what comes
// meanwhile gathers for the next. An entry costs much more than a command, in the leader, on the
// wire and on three disks.
type batcher struct {
	group *group.Group

	mu     sync.Mutex // protects the fields below
	queue  []*proposal
	bytes  int
	flying bool // an entry is on its way
	pace   pace
	waits  *time.Timer    // of a batch that lingers; nil: none does
	work   sync.WaitGroup // entries on their way
	closed bool
}

// A proposal is a command on its way. done gets its outcome once.
type proposal struct {
	cmd  []byte
	done chan proposed
}

type proposed struct {
	outcome
	err error
}

// propose has a command applied. The errors are those of group.Propose.
func (b *batcher) propose(ctx context.Context, cmd []byte) (outcome, error) {
	p := &proposal{cmd: cmd, done: make(chan proposed, 1)}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return outcome{}, fmt.Errorf("%w: %w", group.ErrNotApplied, group.ErrClosed)
	}
	if b.bytes > 0 && b.bytes+len(cmd) > queuedBytes {
		b.mu.Unlock()
		return outcome{}, fmt.Errorf("%w: %w", group.ErrNotApplied, group.ErrOverloaded)
	}
	b.queue = append(b.queue, p)
	b.bytes += len(cmd)
	b.launch(false)
	b.mu.Unlock()
	select {
	case d := <-p.done:
		return d.outcome, d.err
	case <-ctx.Done():
	}
	if b.withdraw(p) {
		return outcome{}, fmt.Errorf("%w: %w", group.ErrNotApplied, context.Cause(ctx))
	}
	return outcome{}, fmt.Errorf("%w: %w", group.ErrUnknownOutcome, context.Cause(ctx))
}

// withdraw takes p back, if it still waits for an entry.
func (b *batcher) withdraw(p *proposal) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, q := range b.queue {
		if q == p {
			b.queue = append(b.queue[:i:i], b.queue[i+1:]...)
			b.bytes -= len(p.cmd)
			return true
		}
	}
	return false
}

// launch proposes what waits, if nothing is on its way, and if it is enough or has waited
// for long enough. The caller holds mu.
func (b *batcher) launch(waited bool) {
	if len(b.queue) == 0 || b.flying {
		return
	}
	if len(b.queue) < b.pace.want && b.bytes < batchBytes && !waited {
		if b.waits == nil {
			b.waits = time.AfterFunc(b.pace.until, b.lingered)
		}
		return
	}
	if b.waits != nil {
		b.waits.Stop()
		b.waits = nil
	}
	size, n := 0, 0
	for _, p := range b.queue {
		if n > 0 && size+len(p.cmd) > batchBytes {
			break
		}
		size += len(p.cmd)
		n++
	}
	batch := append([]*proposal(nil), b.queue[:n]...)
	entry := make([]byte, 0, size+3*n)
	for _, p := range batch { // now: a caller that gives up may use its bytes again
		entry = appendCommand(entry, p.cmd)
	}
	b.queue = append(b.queue[:0], b.queue[n:]...)
	clear(b.queue[len(b.queue):cap(b.queue)])
	b.bytes -= size
	b.flying = true
	b.work.Go(func() { b.fly(batch, entry) })
}

// lingered proposes what has come.
func (b *batcher) lingered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waits = nil
	b.launch(true)
}

// fly proposes one batch, and starts the next.
func (b *batcher) fly(batch []*proposal, entry []byte) {
	began := time.Now()
	// Their callers have their own deadlines; Raft answers in any case.
	response, err := b.group.Propose(context.Background(), entry)
	outcomes, ok := response.([]outcome)
	if err == nil && (!ok || len(outcomes) != len(batch)) {
		err = fmt.Errorf("%w: %w", group.ErrUnknownOutcome, errLater)
	}
	b.mu.Lock()
	b.flying = false
	b.pace.flown(time.Since(began), len(batch), len(b.queue))
	b.launch(b.closed)
	b.mu.Unlock()
	for i, p := range batch {
		d := proposed{err: err}
		if err == nil {
			d.outcome = outcomes[i]
		}
		p.done <- d
	}
}

// close refuses what comes, and waits for what is on its way.
func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true
	queue := b.queue
	b.queue, b.bytes = nil, 0
	b.mu.Unlock()
	for _, p := range queue {
		p.done <- proposed{err: fmt.Errorf("%w: %w", group.ErrNotApplied, group.ErrClosed)}
	}
	b.work.Wait()
}
