package raftnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/streams"
)

// layerName is the name of the streams that carry messages. No group has it.
const layerName = "_raft"

// Kinds of calls.
const (
	kindAppend    calls.Kind = iota + 1 // carried out in the order in which they were sent
	kindHeartbeat                       // an append that tells nothing but who leads
	kindVote
	kindPreVote
	kindTimeoutNow
)

// Codes of refusals. Raft takes an answer that says "unexpected command" for a granted
// pre-vote: none does.
const (
	refusedAbsent uint8 = iota + 1 // no such replica here, or it ends
	refusedBusy                    // too many messages wait for it
	refusedFailed                  // Raft answered with an error
)

// silence is half the time after which a connection ends on which nothing comes: votes go by
// it, and none may wait much longer than an election.
const silence = 500 * time.Millisecond

// A Net is what a node says to others in Raft's name, and hears. Safe for concurrent use.
type Net struct {
	mux    *streams.Mux
	layer  *streams.Layer
	client *calls.Client
	server *calls.Server

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.RWMutex // protects members
	members map[string]*Member
}

// Open is a Net over the streams of mux, whose dialer gets the addresses of replicas. It
// answers at once. Close must be called.
func Open(mux *streams.Mux, o *calls.Options) (*Net, error) {
	layer, err := mux.Layer(layerName)
	if err != nil {
		return nil, fmt.Errorf("open streams of raft: %w", err)
	}
	n := &Net{mux: mux, layer: layer, members: make(map[string]*Member)}
	opt := calls.Options{}
	if o != nil {
		opt = *o
	}
	opt.Silence, opt.DialTimeout, opt.Ended = silence, rpcTimeout, n.broken
	o = &opt
	n.client = calls.NewClient(n.dial, o)
	n.server = calls.NewServer(n, o)
	n.ctx, n.cancel = context.WithCancel(context.Background()) // until Close
	n.work.Go(n.accept)
	return n, nil
}

func (n *Net) dial(ctx context.Context, addr string) (net.Conn, error) {
	timeout := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Millisecond)
	}
	return n.layer.Dial(raft.ServerAddress(addr), timeout)
}

func (n *Net) accept() {
	for {
		conn, err := n.layer.Accept()
		if err != nil {
			return // closed
		}
		n.work.Go(func() {
			defer func() { _ = conn.Close() }()
			_ = n.server.ServeConn(n.ctx, conn) // the server counts why it ended
		})
	}
}

// Stats count since the start what was sent, and what was carried out.
func (n *Net) Stats() (calls.ClientStats, calls.ServerStats) {
	return n.client.Stats(), n.server.Stats()
}

// Close ends all connections. The members are to be closed before. It may be called twice.
func (n *Net) Close() error {
	n.cancel()
	err := errors.Join(n.layer.Close(), n.client.Close())
	n.work.Wait()
	return err
}

// Member is the transport of the replica at addr of a group. It must be closed. The error
// is that of streams.Mux.Layer.
func (n *Net) Member(group, addr string) (*Member, error) {
	m := &Member{
		net: n, group: group, addr: addr, rpcs: make(chan raft.RPC), queue: make(chan appended, laneRoom),
		snapshots: make(chan struct{}, maxSnapshots),
	}
	var err error
	if m.layer, err = n.mux.Layer(m.nameAt(addr)); err != nil {
		return nil, err
	}
	m.ctx, m.cancel = context.WithCancel(n.ctx)
	n.mu.Lock()
	n.members[m.nameAt(addr)] = m
	n.mu.Unlock()
	n.work.Go(m.lane) // its answers may wait for a connection, for which Close of the member does not
	m.work.Go(m.acceptSnapshots)
	return m, nil
}

func (n *Net) member(name string) *Member {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.members[name]
}

func (n *Net) forget(m *Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name := m.nameAt(m.addr); n.members[name] == m {
		delete(n.members, name)
	}
}

// broken tells the members that there was a connection to addr and is none.
func (n *Net) broken(addr string) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, m := range n.members {
		if o := m.observer.Load(); o != nil {
			o.Broken(raft.ServerAddress(addr))
		}
	}
}

func absent(name string) error {
	return &calls.Refusal{Code: refusedAbsent, Detail: "no replica " + name}
}

// Take implements calls.Sequencer: appends keep their order.
func (n *Net) Take(name string, kind calls.Kind, body []byte, answer func([]byte, error)) bool {
	if kind != kindAppend {
		return false
	}
	m := n.member(name)
	if m == nil {
		return false // Serve refuses it
	}
	return m.take(body, answer)
}

// Serve implements calls.Handler.
func (n *Net) Serve(ctx context.Context, name string, kind calls.Kind, body []byte) ([]byte, error) {
	m := n.member(name)
	if m == nil {
		return nil, absent(name)
	}
	switch kind {
	case kindAppend:
		return nil, &calls.Refusal{Code: refusedBusy, Detail: "too many appends wait"} // or Take had taken it
	case kindHeartbeat:
		req, err := decodeAppend(append([]byte(nil), body...))
		if err != nil {
			return nil, err
		}
		if !isHeartbeat(req) { // which would go past Raft's main loop
			return nil, fmt.Errorf("%w: a heartbeat that appends", errMalformed)
		}
		return m.answerHeartbeat(ctx, req)
	case kindVote:
		req, err := decodeVote(append([]byte(nil), body...))
		if err != nil {
			return nil, err
		}
		return m.carryOut(ctx, req)
	case kindPreVote:
		req, err := decodePreVote(append([]byte(nil), body...))
		if err != nil {
			return nil, err
		}
		return m.carryOut(ctx, req)
	case kindTimeoutNow:
		req, err := decodeTimeoutNow(append([]byte(nil), body...))
		if err != nil {
			return nil, err
		}
		return m.carryOut(ctx, req)
	}
	return nil, fmt.Errorf("%w: kind %d", errMalformed, kind)
}
