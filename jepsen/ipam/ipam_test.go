package ipam

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/examples/overlay"
)

const (
	allocators = 50
	kills      = 5
	ttl        = 3 * time.Second
	blockSize  = 256
)

// pool has fewer blocks than there are allocators, so that they want what others have.
var pool = netip.MustParsePrefix("10.99.0.0/19") // 32 blocks

// 50 allocators race for the /24s of a pool through three servers, while the leader of
// the keyspace is killed and started again five times. Some free what they have, some
// end its session, some vanish and leave it to the TTL. No block is ever held twice at
// once, the tokens of each block rise, and in the end all is free.
func TestAllocatorsRaceWhileLeadersDie(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	servers := startServers(t)
	clients := make([]*client.Client, len(servers))
	for i, s := range servers {
		c, err := client.Dial(ctx, s.api, &client.DialOptions{MaxBackoff: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients[i] = c
	}
	await(t, ctx, "the keyspace is created", func(ctx context.Context) error {
		return clients[0].CreateKeyspace(ctx, client.KeyspaceSpec{Name: overlay.IPAMKeyspace, Mode: "strong", Voters: 3})
	})

	reg := newRegistry()
	racing, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for i := range allocators {
		wg.Go(func() {
			a := &allocator{name: fmt.Sprintf("a%d", i), reg: reg, rand: rand.New(rand.NewPCG(1, uint64(i)))}
			a.run(racing, t, servers[i%len(servers)].api)
		})
	}
	progress := func(what string) {
		const want = allocators / 2
		before, _, _, _ := reg.counts()
		await(t, ctx, what, func(context.Context) error {
			if uses, _, _, _ := reg.counts(); uses < before+want {
				return fmt.Errorf("%d blocks given out, want %d", uses-before, want)
			}
			return nil
		})
	}
	progress("allocators work before the first kill")
	for kill := range kills {
		victim := -1
		await(t, ctx, "there is a leader", func(ctx context.Context) error {
			info, err := clients[kill%len(clients)].StrongInfo(ctx, overlay.IPAMKeyspace)
			for i, s := range servers {
				if s.name == info.Leader {
					victim = i
					return nil
				}
			}
			return fmt.Errorf("leader %q: %w", info.Leader, err)
		})
		servers[victim].kill(t)
		progress(fmt.Sprintf("allocators work without %s", servers[victim].name))
		servers[victim].start(t)
		await(t, ctx, "the killed server is back", func(ctx context.Context) error {
			_, err := clients[victim].StrongInfo(ctx, overlay.IPAMKeyspace)
			return err
		})
		uses, _, _, _ := reg.counts()
		t.Logf("kill %d: %s; %d uses so far", kill+1, servers[victim].name, uses)
	}
	stop()
	wg.Wait()

	ipam, err := clients[0].Strong(ctx, overlay.IPAMKeyspace)
	if err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "all blocks are free again", func(ctx context.Context) error {
		left, err := (&overlay.IPAM{Strong: ipam}).Allocations(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d are not: %+v", len(left), left[0])
		}
		return err
	})
	for e, err := range ipam.List(ctx, "", nil) {
		t.Errorf("a claim is left: %s, %v", e.Key, err)
	}
	uses, again, late, problems := reg.counts()
	for _, p := range problems {
		t.Error(p)
	}
	if again < uses/2 {
		t.Errorf("of %d uses %d were of a block that another had had: that is no race", uses, again)
	}
	t.Logf("%d uses, %d of them again, %d late answers", uses, again, late)
}

// An allocator takes blocks through one server and holds each for a moment.
type allocator struct {
	name string
	reg  *registry
	rand *rand.Rand
}

// run goes on until ctx ends. What fails is tried again: servers die.
func (a *allocator) run(ctx context.Context, t *testing.T, api string) {
	var c *client.Client
	for c == nil {
		var err error
		if c, err = client.Dial(ctx, api, &client.DialOptions{MaxBackoff: 200 * time.Millisecond}); err != nil && rest(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
	defer c.Close()
	strong, err := c.Strong(ctx, overlay.IPAMKeyspace)
	if err != nil {
		t.Error(err)
		return
	}
	for ctx.Err() == nil {
		if a.rand.IntN(4) == 0 {
			err = a.vanish(ctx, c)
		} else {
			err = a.hold(ctx, strong)
		}
		if err != nil {
			rest(ctx, a.moment())
		}
	}
}

func (a *allocator) moment() time.Duration {
	return time.Duration(a.rand.Int64N(int64(300 * time.Millisecond)))
}

// hold leases a block as the overlay's agents do and gives it back.
func (a *allocator) hold(ctx context.Context, strong client.Strong) error {
	attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ipam := overlay.IPAM{Strong: strong, Pool: pool, Node: a.name, TTL: ttl}
	lease, err := ipam.Take(attempt, overlay.Claim{})
	if err != nil {
		return err
	}
	first := lease.Prefix.Addr().As4()
	h := &holding{first: uint64(binary.BigEndian.Uint32(first[:])), token: client.FencingToken(lease.Token), live: func() bool {
		select {
		case <-lease.Lost():
			return false
		default:
			return true
		}
	}}
	if a.reg.use(h) {
		rest(ctx, a.moment())
		a.reg.leave(h)
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), ttl)
	defer cancel()
	return lease.End(end) // an error leaves it to the TTL
}

// vanish takes a block under a session that nobody keeps alive, and forgets it: the
// primitive calls, since the library's sessions live as long as their client.
func (a *allocator) vanish(ctx context.Context, c *client.Client) error {
	const short = time.Second
	attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	sent := time.Now()
	grant, err := c.StrongCall(attempt, overlay.IPAMKeyspace, &client.StrongCall{Kind: client.CallGrant, TTL: short.Milliseconds()})
	if err != nil {
		return err
	}
	block, err := c.StrongCall(attempt, overlay.IPAMKeyspace, &client.StrongCall{
		Kind: client.CallAllocate, Name: "addresses", Size: blockSize, Align: blockSize, Session: grant.Session, Label: a.name,
	})
	if err != nil {
		return err
	}
	a.reg.use(&holding{first: block.First, token: block.Token, live: deadline(sent, short)})
	return nil
}

// rest waits; the end of ctx is its error.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await asks again until f has no error.
func await(t *testing.T, ctx context.Context, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := f(attempt)
		cancel()
		if err == nil {
			return
		}
		if rest(ctx, 20*time.Millisecond) != nil {
			t.Fatalf("%s: not yet after %v: %v", what, patience, err)
		}
	}
}
