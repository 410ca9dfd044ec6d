package raftnet

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// inFlight is how many appends of a pipeline are on their way. Raft makes the next one
	// of all that has come meanwhile: more in flight are smaller ones.
	inFlight = 2
	// unread is how many answers may wait for Raft; then the pipeline ends.
	unread = 64
)

// A Pipeline is what Member.AppendEntriesPipeline returns.
type Pipeline interface {
	raft.AppendPipeline
	// Heard tells Raft that the replica there answered a heartbeat with success, as if it had
	// answered an append without entries, so that Raft knows of it. It reports whether Raft
	// hears of it: not as long as there are other answers that it has not read, or when the
	// pipeline has ended. It does not block.
	Heard(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) bool
}

// A pipeline ends with the first answer that is no success: it refuses what comes later,
// and takes the answers to what was on its way. Raft (1.8.0) reads no more answers after
// that one, but would send another request, and wait for ever for its turn.
type pipeline struct {
	m       *Member
	to      raft.Server
	name    string
	slots   chan struct{} // holds one for each append on its way
	answers chan raft.AppendFuture
	failed  atomic.Bool
	closed  chan struct{}
	closing sync.Once
	room    []byte // for messages; belongs to AppendEntries, which one goroutine calls
}

// An appendFuture is final when it is in a pipeline's answers.
type appendFuture struct {
	start time.Time
	req   *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	err   error
}

func (f *appendFuture) Error() error                          { return f.err }
func (f *appendFuture) Start() time.Time                      { return f.start }
func (f *appendFuture) Request() *raft.AppendEntriesRequest   { return f.req }
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.resp }

// AppendEntriesPipeline implements raft.Transport.
func (m *Member) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	return &pipeline{
		m: m, to: raft.Server{ID: id, Address: to}, name: m.nameAt(string(to)),
		slots: make(chan struct{}, inFlight), answers: make(chan raft.AppendFuture, unread), closed: make(chan struct{}),
	}, nil
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.closing.Do(func() { close(p.closed) })
	return nil
}

// Heard implements Pipeline. What it adds leaves room for the answers to appends.
func (p *pipeline) Heard(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) bool {
	if p.failed.Load() || len(p.answers) > 0 {
		return false
	}
	select {
	case <-p.closed:
		return false
	case p.answers <- &appendFuture{start: time.Now(), req: req, resp: resp}:
		return true
	default:
		return false
	}
}

// AppendEntries implements raft.AppendPipeline. It waits for its turn, for rpcTimeout at
// most. Raft looks at the future from Consumer alone.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if err := p.turn(); err != nil {
		return nil, err
	}
	last, rest := cut(req)
	for ; rest != nil; last, rest = cut(rest) {
		// What does not go at once goes before anything else is sent. Its answer is not that of
		// the whole.
		var first raft.AppendEntriesResponse
		if err := p.m.AppendEntries(p.to.ID, p.to.Address, last, &first); err != nil || !first.Success || first.Term > req.Term {
			p.failed.Store(true)
			return nil, raft.ErrPipelineShutdown // Raft tries again without a pipeline, and learns why
		}
	}
	f := &appendFuture{start: time.Now(), req: req, resp: resp}
	p.room = appendAppend(p.room[:0], last, last.Entries)
	err := p.m.net.client.Start(string(p.to.Address), p.name, kindAppend, p.room, func(answer []byte, err error) { p.answered(f, answer, err) })
	if cap(p.room) > keptRoom {
		p.room = nil
	}
	if err != nil {
		p.failed.Store(true)
		return nil, fmt.Errorf("append to %s: %w", p.to.ID, err)
	}
	return f, nil
}

// keptRoom is the largest buffer for messages that a pipeline keeps.
const keptRoom = 16 << 10

// turn waits for a slot.
func (p *pipeline) turn() error {
	if p.failed.Load() {
		return raft.ErrPipelineShutdown
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(rpcTimeout)
	defer timer.Stop()
	select {
	case p.slots <- struct{}{}:
		if p.failed.Load() {
			return raft.ErrPipelineShutdown
		}
		return nil
	case <-timer.C:
		p.failed.Store(true)
		return fmt.Errorf("append to %s: no answer after %v", p.to.ID, rpcTimeout)
	case <-p.closed:
	case <-p.m.ctx.Done():
	}
	return raft.ErrPipelineShutdown
}

// answered is called in the order of the appends, as long as there is a connection.
func (p *pipeline) answered(f *appendFuture, answer []byte, err error) {
	<-p.slots
	if p.failed.Load() {
		return // Raft does not read it
	}
	if err == nil {
		err = decodeAppendAnswer(answer, f.resp)
	}
	if f.err = err; err != nil {
		*f.resp = raft.AppendEntriesResponse{} // Raft reads it, and not the error
	}
	if err != nil || !f.resp.Success || f.resp.Term > f.req.Term {
		p.failed.Store(true)
	}
	select {
	case p.answers <- f: // first: Raft may commit by it
	default: // Raft never learns of this one, and starts again
		p.failed.Store(true)
		return
	}
	if o := p.m.observer.Load(); o != nil {
		o.Answered(Answer{To: p.to, Request: f.req, Response: f.resp, Err: err})
	}
}
