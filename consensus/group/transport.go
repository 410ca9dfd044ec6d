package group

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// transport is Raft's own without a deadlock of its pipelines. Raft (1.8.0) reads
// no more answers of a pipeline after one that was no success, but sends another
// request if there is an entry to send at that moment. It has room for two, so that
// one waits for ever: the follower gets heartbeats and no more entries, and
// Shutdown does not return.
type transport struct{ *raft.NetworkTransport }

// AppendEntriesPipeline implements raft.Transport.
func (t transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.run() // until Close, which Raft defers
	return p, nil
}

// A pipeline ends with the first answer that is no success: it refuses what comes
// later, and takes the answers to what was on its way.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	failed  atomic.Bool
	closed  chan struct{}
	once    sync.Once
}

func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if p.failed.Load() {
		return nil, raft.ErrPipelineShutdown
	}
	return p.AppendPipeline.AppendEntries(req, resp)
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

func (p *pipeline) run() {
	for {
		var f raft.AppendFuture
		select {
		case f = <-p.AppendPipeline.Consumer():
		case <-p.closed:
			return
		}
		if p.failed.Load() {
			continue // Raft does not read it
		}
		if f.Error() != nil || !f.Response().Success || f.Response().Term > f.Request().Term {
			p.failed.Store(true)
		}
		select {
		case p.answers <- f:
		case <-p.closed:
			return
		}
	}
}
