package overlay

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/client"
)

// fakeCluster holds keyspaces as maps and tells watchers of changes.
type fakeCluster struct {
	client.Cluster // not used beyond Keyspace, Strong and CreateKeyspace
	ipam           fakeStrong
	mu             sync.Mutex
	spaces         map[string]*fakeKeyspace
}

func (c *fakeCluster) Keyspace(_ context.Context, name string) (client.Keyspace, error) {
	return c.space(name), nil
}

func (c *fakeCluster) space(name string) *fakeKeyspace {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spaces == nil {
		c.spaces = map[string]*fakeKeyspace{}
	}
	if c.spaces[name] == nil {
		c.spaces[name] = &fakeKeyspace{name: name, entries: map[string]client.Entry{}}
	}
	return c.spaces[name]
}

type fakeKeyspace struct {
	client.Keyspace // not used beyond the methods below
	name            string
	mu              sync.Mutex
	entries         map[string]client.Entry
	watches         []*fakeWatch
	opened          []client.Cursor // the cursor of each watch, in order
	slow            bool            // snapshots are not complete yet
}

func (k *fakeKeyspace) Name() string { return k.name }

func (k *fakeKeyspace) Put(_ context.Context, key string, value []byte, o *client.PutOptions) (client.Version, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := client.Entry{Key: key, Value: value, Modified: time.Now(), Ephemeral: o != nil && o.Ephemeral}
	k.entries[key] = e
	k.tell(client.Event{Type: client.EventPut, Entry: e, Cursor: "later"})
	return client.Version{Inc: 1, Seq: 1}, nil
}

func (k *fakeKeyspace) Delete(_ context.Context, key string, _ *client.DeleteOptions) (client.Deletion, error) {
	k.remove(key, client.ReasonDeleted)
	return client.Deletion{Deleted: true}, nil
}

func (k *fakeKeyspace) remove(key string, why client.Reason) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.entries, key)
	k.tell(client.Event{Type: client.EventDelete, Entry: client.Entry{Key: key}, Reason: why, Cursor: "later"})
}

func (k *fakeKeyspace) all() map[string]client.Entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.entries)
}

func (k *fakeKeyspace) tell(ev client.Event) {
	for _, w := range k.watches {
		w.events <- ev
	}
}

// breakWatches fails every open watch and forgets what they would have seen.
func (k *fakeKeyspace) breakWatches() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.watches {
		close(w.events)
	}
	k.watches = nil
}

func (k *fakeKeyspace) Watch(_ context.Context, _ string, o *client.WatchOptions) (client.Watch, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := &fakeWatch{events: make(chan client.Event, 100)}
	k.watches = append(k.watches, w)
	k.opened = append(k.opened, o.From)
	if o.From != "" {
		w.events <- client.Event{Type: client.EventResync, Cursor: "resync"}
	}
	for _, e := range k.entries {
		w.events <- client.Event{Type: client.EventPut, Entry: e, Cursor: "snapshot"}
	}
	if !k.slow {
		w.events <- client.Event{Type: client.EventSynced, Cursor: "synced"}
	}
	return w, nil
}

type fakeWatch struct{ events chan client.Event }

func (w *fakeWatch) Next(ctx context.Context) (client.Event, error) {
	select {
	case ev, ok := <-w.events:
		if !ok {
			return ev, client.ErrUnavailable
		}
		return ev, nil
	case <-ctx.Done():
		return client.Event{}, ctx.Err()
	}
}

func (w *fakeWatch) Close() error { return nil }

// lockedKernel is a fakeKernel that can fail.
type lockedKernel struct {
	mu     sync.Mutex
	k      fakeKernel
	broken bool
}

func (l *lockedKernel) Tables() (Tables, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Tables{maps.Clone(l.k.Forwards), maps.Clone(l.k.Neighbours)}, nil
}

func (l *lockedKernel) Apply(c Changes) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return errors.New("no buffer space")
	}
	l.k.apply(c)
	return nil
}

func (l *lockedKernel) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// testPool is all addresses.
var testPool = netip.MustParsePrefix("10.99.0.0/16")

// runAgent runs an agent of h1, which leases 10.99.1.0/24, inside a synctest bubble;
// expect waits until nothing moves and compares the kernel.
func runAgent(t *testing.T, c *fakeCluster, k *lockedKernel, own ...Endpoint) (a *Agent, expect func(what string, want Tables)) {
	c.ipam.c, c.ipam.held = c, map[uint64]client.FencingToken{}
	if c.ipam.next == 0 {
		c.ipam.next = 1
	}
	a = NewAgent(AgentConfig{Node: Node{Name: "h1", VNI: 42, MAC: DeriveMAC("h1"), VTEP: testNode(1).VTEP}, Pool: testPool, Cluster: c, Kernel: k})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want Canceled", err)
		}
	})
	for _, p := range own {
		if err := a.Attach(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	return a, func(what string, want Tables) {
		t.Helper()
		synctest.Wait()
		if got, _ := k.Tables(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the kernel holds %v, want %v", what, got, want)
		}
	}
}

// publish writes a record; a host or an endpoint has its lease then.
func publish(t *testing.T, c *fakeCluster, keyspace string, r interface {
	Encode() (string, []byte, error)
}) {
	t.Helper()
	if n, ok := r.(Node); ok {
		publish(t, c, IPAMKeyspace, n.lease())
	}
	key, value, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c.space(keyspace).Put(t.Context(), key, value, nil)
}

func TestAgentFollowsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := &fakeCluster{}, &lockedKernel{k: fakeKernel{NewTables()}}
		h2, p, own := testNode(2), testEndpoint(2, 1, 2, 2), testEndpoint(1, 1, 1, 1)
		stale := testEndpoint(3, 1, 3, 3)
		k.k.Tables = tables(nil, stale) // left by an earlier agent
		publish(t, c, NodesKeyspace, h2)
		publish(t, c, EndpointsKeyspace, p)
		a, expect := runAgent(t, c, k, own)

		expect("at the start", tables([]Node{h2}, p))
		if e := c.space(EndpointsKeyspace).entries[own.Key()]; !e.Ephemeral {
			t.Errorf("own endpoint is %+v, want owner-bound", e)
		}
		if e := c.space(NodesKeyspace).entries["h1"]; !e.Ephemeral {
			t.Errorf("own host is %+v, want owner-bound", e)
		}

		moved := testEndpoint(2, 1, 1, 0)
		if err := a.Attach(t.Context(), moved); !errors.Is(err, ErrNotOwner) {
			t.Errorf("Attach of another host's address = %v, want ErrNotOwner", err)
		}
		if _, err := a.Claim(t.Context(), moved.IP); err != nil {
			t.Fatal(err)
		}
		expect("after its address was claimed here", tables([]Node{h2}))
		if err := a.Attach(t.Context(), moved); err != nil {
			t.Fatal(err)
		}
		expect("after an endpoint moved here", tables([]Node{h2}))
		if err := a.Detach(t.Context(), moved.Key()); err != nil {
			t.Fatal(err)
		}
		back := testMove(2, 1, 2, 1000)
		publish(t, c, IPAMKeyspace, back)
		p.Token = back.Token
		publish(t, c, EndpointsKeyspace, p)
		expect("after it went back", tables([]Node{h2}, p))

		c.space(EndpointsKeyspace).remove(p.Key(), client.ReasonOwnerFailed)
		c.space(NodesKeyspace).remove("h2", client.ReasonOwnerFailed)
		expect("after the owner failed", tables(nil))
		if r := a.Report(); !r.Synced || r.Nodes != 1 || r.Endpoints != 1 || r.Repaired != 0 {
			t.Errorf("report %+v", r)
		}
	})
}

func TestAgentRepairsTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := &fakeCluster{}, &lockedKernel{k: fakeKernel{NewTables()}}
		h2, p := testNode(2), testEndpoint(2, 1, 2, 2)
		publish(t, c, NodesKeyspace, h2)
		publish(t, c, EndpointsKeyspace, p)
		a, expect := runAgent(t, c, k)
		expect("at the start", tables([]Node{h2}, p))

		k.set(func() {
			k.k.Forwards[Forward{DeriveMAC("stale"), h2.VTEP}] = true
			delete(k.k.Neighbours, p.IP)
		})
		time.Sleep(2 * time.Second)
		expect("after the period", tables([]Node{h2}, p))
		if r := a.Report(); r.Repaired != 2 {
			t.Errorf("%d repairs, want 2", r.Repaired)
		}

		k.set(func() { k.broken = true })
		q := testEndpoint(2, 2, 2, 2)
		publish(t, c, EndpointsKeyspace, q)
		expect("while the kernel refuses", tables([]Node{h2}, p))
		k.set(func() { k.broken = false })
		r := testEndpoint(2, 3, 2, 2)
		publish(t, c, EndpointsKeyspace, r)
		expect("at the next change, when it no longer does", tables([]Node{h2}, p, q, r))
		if r := a.Report(); r.Failed != 1 {
			t.Errorf("%d failed rounds, want 1", r.Failed)
		}
	})
}

// An agent that starts again leaves the kernel alone until it has seen both
// keyspaces whole: what it has not seen may well be there.
func TestAgentWaitsForWholeSnapshots(t *testing.T) {
	for _, slow := range []string{NodesKeyspace, EndpointsKeyspace, IPAMKeyspace} {
		synctest.Test(t, func(t *testing.T) {
			c, k := &fakeCluster{}, &lockedKernel{k: fakeKernel{NewTables()}}
			h2, p := testNode(2), testEndpoint(2, 1, 2, 2)
			before := tables([]Node{h2, testNode(3)}, p)
			k.k.Tables = tables([]Node{h2, testNode(3)}, p)
			publish(t, c, EndpointsKeyspace, p)
			publish(t, c, NodesKeyspace, h2)
			space := c.space(slow)
			space.slow = true
			a, expect := runAgent(t, c, k)
			time.Sleep(10 * time.Second)
			expect("before "+slow+" is whole", before)
			if a.Report().Synced {
				t.Error("the agent says that it is synced")
			}
			space.mu.Lock()
			space.tell(client.Event{Type: client.EventSynced, Cursor: "synced"})
			space.mu.Unlock()
			expect("when it is", tables([]Node{h2}, p))
		})
	}
}

// A delete missed while a watch was down is caught up with, and what stayed is
// never taken out of the kernel meanwhile.
func TestAgentWatchesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := &fakeCluster{}, &lockedKernel{k: fakeKernel{NewTables()}}
		h2, p, q := testNode(2), testEndpoint(2, 1, 2, 2), testEndpoint(2, 2, 2, 2)
		publish(t, c, NodesKeyspace, h2)
		publish(t, c, EndpointsKeyspace, p)
		publish(t, c, EndpointsKeyspace, q)
		a, expect := runAgent(t, c, k)
		expect("at the start", tables([]Node{h2}, p, q))

		space := c.space(EndpointsKeyspace)
		space.breakWatches()
		space.remove(p.Key(), client.ReasonDeleted)
		expect("while the watch is down", tables([]Node{h2}, p, q))
		time.Sleep(time.Second)
		expect("when it is back", tables([]Node{h2}, q))
		if got, want := space.opened, []client.Cursor{"", "synced"}; !reflect.DeepEqual(got, want) {
			t.Errorf("watches opened from %q, want %q", got, want)
		}
		if r := a.Report(); r.Rewatched != 1 {
			t.Errorf("rewatched %d times, want 1", r.Rewatched)
		}
	})
}
