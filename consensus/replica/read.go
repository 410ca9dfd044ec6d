package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
)

const (
	// readers is how many reads may wait for the next round; more wait for a place.
	readers = 4096
	// roundsInFlight bounds the rounds whose answer is open.
	roundsInFlight = 4
	// roundStagger is how long a round waits for the one before it: the reads that come meanwhile share it.
	// Where an answer takes longer, it is the distance that does, and the next round begins beside.
	roundStagger = 10 * time.Millisecond
)

// Read is a state that holds everything that was committed before the call, anywhere: a
// read of it is linearizable. Reads that wait share a round: they ask the leader for the
// index that it has proven, and wait until this replica has come to it. The error is
// ErrNoLeader, group.ErrClosed or that of ctx. A read has no effect.
func (r *Replica) Read(ctx context.Context) (*machine.View, error) {
	if r.reads.alone() {
		return r.reads.own(ctx)
	}
	rd := &read{done: make(chan struct{})}
	select {
	case r.reads.queue <- rd:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoLeader, context.Cause(ctx))
	case <-r.ctx.Done():
		return nil, group.ErrClosed
	}
	select {
	case <-rd.done:
		return rd.view, rd.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoLeader, context.Cause(ctx))
	case <-r.ctx.Done():
		return nil, group.ErrClosed
	}
}

// A read waits for a round; the other fields are final when done is closed.
type read struct {
	view *machine.View
	err  error
	done chan struct{}
}

// reader makes the rounds. Each takes all reads that wait: those come after it must
// take another, because theirs began before.
type reader struct {
	r     *Replica
	queue chan *read
	slots chan struct{} // as many as rounds in flight
	ended chan struct{} // of capacity 1: a round has ended
}

func newReader(r *Replica) *reader {
	return &reader{
		r: r, queue: make(chan *read, readers),
		slots: make(chan struct{}, roundsInFlight), ended: make(chan struct{}, 1),
	}
}

// end gives a slot back.
func (rd *reader) end() {
	<-rd.slots
	select {
	case rd.ended <- struct{}{}:
	default: // it is known already that one has
	}
}

// alone takes a slot if no read waits and no round is in flight.
func (rd *reader) alone() bool {
	if len(rd.queue) > 0 || len(rd.slots) > 0 {
		return false
	}
	select {
	case rd.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// own is a round for one read that is alone, by its caller: waking others would take longer. Its slot was taken.
func (rd *reader) own(ctx context.Context) (*machine.View, error) {
	defer rd.end()
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(rd.r.ctx, cancel)()
	view, err := rd.round(both)
	switch {
	case err == nil:
		return view, nil
	case rd.r.ctx.Err() != nil:
		return nil, group.ErrClosed
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", ErrNoLeader, context.Cause(ctx))
	}
	return nil, err
}

func (rd *reader) run() {
	for {
		var batch []*read
		select {
		case <-rd.r.ctx.Done():
			return // whoever waits sees it too
		case first := <-rd.queue:
			batch = append(batch, first)
		}
		if !rd.await() {
			return
		}
		for len(batch) < readers && len(rd.queue) > 0 {
			batch = append(batch, <-rd.queue)
		}
		rd.r.work.Go(func() {
			view, err := rd.round(rd.r.ctx)
			rd.end()
			for _, b := range batch {
				b.view, b.err = view, err
				close(b.done)
			}
		})
	}
}

// await takes a slot when no round is in flight, or the newest of them has been for a while. False: the
// replica is closed.
func (rd *reader) await() bool {
	if len(rd.slots) > 0 {
		patience := time.NewTimer(roundStagger)
		defer patience.Stop()
		for late := false; len(rd.slots) > 0 && !late; {
			select {
			case <-rd.r.ctx.Done():
				return false
			case <-rd.ended:
			case <-patience.C:
				late = true
			}
		}
	}
	select {
	case <-rd.r.ctx.Done():
		return false
	case rd.slots <- struct{}{}:
		return true
	}
}

// roundTimeout bounds a round: callers have their own time, and most of them less.
const roundTimeout = 10 * time.Second

func (rd *reader) round(ctx context.Context) (view *machine.View, err error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	var index uint64
	err = rd.r.atLeader(ctx, func(ctx context.Context, leader string) (err error) {
		index, err = rd.r.indexAt(ctx, leader)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rd.r.ViewAt(ctx, index)
}

// indexAt asks the leader for the index that a linearizable read must wait for.
func (r *Replica) indexAt(ctx context.Context, leader string) (uint64, error) {
	if leader == "" {
		return r.readIndex(ctx, "", 0)
	}
	// The reads of this round have begun: see group.ReadIndexFor.
	body := binary.LittleEndian.AppendUint64(nil, r.group.Term())
	reply, err := r.call(ctx, leader, CallReadIndex, append(body, r.cfg.Group.ID...))
	if err != nil {
		return 0, err
	}
	if len(reply) != 8 {
		return 0, fmt.Errorf("%w: answer of %d bytes", ErrUnknownCall, len(reply))
	}
	return binary.LittleEndian.Uint64(reply), nil
}

// readIndex proves that this replica leads; everything that was committed before is
// applied here then. The index is that of the last command. voter is who asks, at that term; empty: this
// replica.
func (r *Replica) readIndex(ctx context.Context, voter string, term uint64) (uint64, error) {
	if _, err := r.group.ReadIndexFor(ctx, voter, term); err != nil {
		return 0, err
	}
	if err := r.state.over(); err != nil { // Raft goes on where the machine has stopped
		return 0, err
	}
	index := r.state.index()
	r.group.Hasten(voter, index)
	return index, nil
}
