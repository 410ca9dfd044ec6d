package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/raftnet"
	"github.com/meshkv/meshkv/consensus/streams"
	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

const groupName = "g"

// A rig is the replicas of one group on a network in memory, in virtual time.
type rig struct {
	t       *testing.T
	network *memnet.Network
	members []*member

	mu    sync.Mutex // protects the fields below
	calls int
	// handle carries a call, instead of at; nil: at does.
	handle func(to *member, kind calls.Kind, at func() ([]byte, error)) ([]byte, error)
}

type member struct {
	*Replica
	node, addr string
	log        *gatedLog
	wire       *raftnet.Net
	stop       func()
}

// run runs test with n replicas that have a leader.
func run(t *testing.T, n int, test func(t *testing.T, r *rig)) {
	t.Helper()
	dirs := make([]string, n)
	for i := range dirs {
		dirs[i] = t.TempDir()
	}
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, network: memnet.New()}
		var voters []group.Server
		for i := range n {
			m := &member{node: fmt.Sprint("n", i), addr: fmt.Sprintf("n%d/disk", i), log: &gatedLog{InmemStore: raft.NewInmemStore()}}
			r.members = append(r.members, m)
			voters = append(voters, group.Server{ID: m.addr, Addr: m.addr})
		}
		for i, m := range r.members {
			r.open(m, dirs[i], voters)
		}
		defer r.close()
		r.leader()
		test(t, r)
	})
}

func (r *rig) close() {
	r.carry(nil)
	for _, m := range r.members {
		m.log.open()
		if err := m.Close(context.Background()); err != nil {
			r.t.Error(err)
		}
		if err := m.wire.Close(); err != nil {
			r.t.Error(err)
		}
		m.stop()
	}
}

func (r *rig) open(m *member, dir string, voters []group.Server) {
	r.t.Helper()
	must := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	ln, err := r.network.Listen(m.addr)
	must(err)
	mux := streams.New(ln, r.network.Dialer(m.addr))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mux.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	m.stop = func() {
		cancel()
		running.Wait()
	}
	m.wire, err = raftnet.Open(mux, nil)
	must(err)
	transport, err := m.wire.Member(groupName, m.addr)
	must(err)
	m.Replica, err = Open(Config{
		Group: group.Config{ID: m.addr, Dir: dir, Log: m.log, Transport: transport, Bootstrap: voters},
		Name:  groupName, Node: m.node, Calls: r,
	})
	must(err)
}

// Call implements Caller.
func (r *rig) Call(ctx context.Context, node, name string, kind calls.Kind, body []byte) ([]byte, error) {
	i := slices.IndexFunc(r.members, func(m *member) bool { return m.node == node })
	if i < 0 || name != groupName {
		return nil, calls.ErrNotSent
	}
	r.mu.Lock()
	r.calls++
	handle := r.handle
	r.mu.Unlock()
	at := func() ([]byte, error) { return r.members[i].Serve(ctx, kind, slices.Clone(body)) }
	if handle == nil {
		return at()
	}
	return handle(r.members[i], kind, at)
}

// carry makes calls go by handle from now on; nil: as they are.
func (r *rig) carry(handle func(to *member, kind calls.Kind, at func() ([]byte, error)) ([]byte, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handle = handle
}

// called is how many calls there were.
func (r *rig) called() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

// leader is who leads and does the leader's duties, once all follow it; among these, if any are given.
func (r *rig) leader(among ...*member) *member {
	r.t.Helper()
	if among == nil {
		among = r.members
	}
	for range 10_000 {
		for _, m := range among {
			k, _ := m.duties.take()
			m.duties.mu.Unlock()
			if k != nil && !slices.ContainsFunc(among, func(o *member) bool { return o.group.Leader().ID != m.addr }) {
				return m
			}
		}
		time.Sleep(time.Millisecond)
	}
	r.t.Fatal("no leader within 10s")
	return nil
}

// followers are the others.
func (r *rig) followers(leader *member) (others []*member) {
	for _, m := range r.members {
		if m != leader {
			others = append(others, m)
		}
	}
	return others
}

// isolate cuts m off from the others, or ends that. Calls are not concerned.
func (r *rig) isolate(m *member, cut bool) {
	for _, o := range r.followers(m) {
		for _, pair := range [...][2]string{{m.addr, o.addr}, {o.addr, m.addr}} {
			if cut {
				r.network.Cut(pair[0], pair[1])
			} else {
				r.network.Heal(pair[0], pair[1])
			}
		}
	}
}

// A gatedLog is a log in memory. While it is shut, commands are not written; whoever writes waits.
type gatedLog struct {
	*raft.InmemStore

	mu       sync.Mutex // protects the fields below
	gate     chan struct{}
	commands [][]byte // entries with commands, in order
}

func (l *gatedLog) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate = make(chan struct{})
}

// open may be called twice.
func (l *gatedLog) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gate != nil {
		close(l.gate)
		l.gate = nil
	}
}

// entries are the entries with commands so far.
func (l *gatedLog) entries() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.commands)
}

func (l *gatedLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *gatedLog) StoreLogs(entries []*raft.Log) error {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate != nil && slices.ContainsFunc(entries, func(e *raft.Log) bool { return e.Type == raft.LogCommand }) {
		<-gate
	}
	l.mu.Lock()
	for _, e := range entries {
		if e.Type == raft.LogCommand {
			l.commands = append(l.commands, e.Data)
		}
	}
	l.mu.Unlock()
	return l.InmemStore.StoreLogs(entries)
}

// put is a command that writes a key.
func put(key string, value []byte) *machine.Txn {
	return &machine.Txn{Then: []machine.Op{&machine.Put{Key: key, Value: value}}}
}

// encoded is a command without a request.
func encoded(t *testing.T, body machine.Body) []byte {
	t.Helper()
	cmd, err := (&machine.Command{Body: body}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// mustDo has a command applied.
func mustDo(t *testing.T, m *member, body machine.Body) Done {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := m.Do(ctx, body, machine.Request{})
	if err = errors.Join(err, d.Err); err != nil {
		t.Fatal(err)
	}
	return d
}

// valueAt is what a view has for a key; empty: nothing.
func valueAt(v *machine.View, key string) string {
	if e := v.Get(key); e != nil {
		return string(e.Value)
	}
	return ""
}
