package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/internal/strongtest"
)

// named is a Keyspace of which only the name is used.
type named struct {
	client.Keyspace
	name string
}

func (n named) Name() string { return n.name }

// A process is one user of the keyspace, whose calls can be made to hang, as if its
// packets vanished.
type process struct {
	ks   *strongtest.Keyspace
	hung atomic.Bool
}

func (p *process) StrongCall(ctx context.Context, name string, call *client.StrongCall) (client.StrongReply, error) {
	if p.hung.Load() {
		<-ctx.Done()
		return client.StrongReply{}, fmt.Errorf("%w: %w", client.ErrUnknownOutcome, ctx.Err())
	}
	return p.ks.StrongCall(ctx, name, call)
}

// open is a handle of another process.
func open(t *testing.T, ks *strongtest.Keyspace) (client.StrongHandle, *process) {
	p := &process{ks: ks}
	s := client.NewStrong(p, named{name: "k"})
	t.Cleanup(func() {
		p.hung.Store(false)
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s, p
}

func must[T any](v T, err error) func(t *testing.T, what string) T {
	return func(t *testing.T, what string) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return v
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T, ks *strongtest.Keyspace)) {
	synctest.Test(t, func(t *testing.T) { f(t, strongtest.New("k")) })
}

func TestLockExcludes(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		a, _ := open(t, ks)
		b, _ := open(t, ks)
		ctx := t.Context()
		first := must(a.Lock(ctx, "l", &client.LockOptions{Value: []byte("a")}))(t, "Lock")
		if _, err := b.TryLock(ctx, "l", nil); !errors.Is(err, client.ErrConflict) {
			t.Fatalf("TryLock of a lock that is held: got %v, want a conflict", err)
		}
		if _, err := b.Lock(within(t, time.Second), "l", nil); !errors.Is(err, client.ErrTimeout) || errors.Is(err, client.ErrUnknownOutcome) {
			t.Fatalf("Lock that ran out of time: got %v, want a timeout", err)
		}
		info := must(b.LockInfo(ctx, "l"))(t, "LockInfo")
		if len(info.Holders) != 1 || info.Holders[0].Token != first.Token() || string(info.Holders[0].Value) != "a" || len(info.Waiting) != 0 {
			t.Fatalf("LockInfo: got %+v", info)
		}
		for i := range 2 {
			if err := first.Unlock(ctx); err != nil {
				t.Fatalf("Unlock %d: %v", i+1, err)
			}
		}
		if !isClosed(first.Lost()) {
			t.Error("a lock that was given up is not lost")
		}
		second := must(b.TryLock(ctx, "l", nil))(t, "TryLock")
		if second.Token() <= first.Token() {
			t.Errorf("tokens: got %d after %d", second.Token(), first.Token())
		}
	})
}

func TestReadersAndSemaphore(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		a, _ := open(t, ks)
		ctx := t.Context()
		r1 := must(a.RLock(ctx, "rw", nil))(t, "RLock")
		r2 := must(a.RLock(ctx, "rw", nil))(t, "RLock")
		if _, err := a.TryLock(ctx, "rw", nil); !errors.Is(err, client.ErrConflict) {
			t.Fatalf("a writer beside readers: got %v", err)
		}
		for _, h := range []client.Held{r1, r2} {
			if err := h.Unlock(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			must(a.Semaphore(ctx, "s", 2, nil))(t, "Semaphore")
		}
		if _, err := a.Semaphore(within(t, time.Second), "s", 2, nil); !errors.Is(err, client.ErrTimeout) {
			t.Fatalf("a third of two places: got %v", err)
		}
	})
}

// TestS2 kills the middle one of three who wait: the order is kept, and each release
// wakes one.
func TestS2(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		holder, _ := open(t, ks)
		held := must(holder.Lock(t.Context(), "l", nil))(t, "Lock")
		var mu sync.Mutex
		var order []int
		results := make([]chan error, 3)
		procs := make([]*process, 3)
		locks := make([]client.Held, 3)
		for i := range 3 {
			s, p := open(t, ks)
			procs[i], results[i] = p, make(chan error, 1)
			go func() {
				h, err := s.Lock(t.Context(), "l", nil)
				mu.Lock()
				locks[i] = h
				if err == nil {
					order = append(order, i)
				}
				mu.Unlock()
				results[i] <- err
			}()
			synctest.Wait() // first come, first served
		}
		procs[1].hung.Store(true)
		time.Sleep(time.Minute)
		if err := <-results[1]; !errors.Is(err, client.ErrSessionLost) {
			t.Fatalf("the one that was killed: got %v, want a lost session", err)
		}
		for _, i := range []int{0, 2} {
			if err := held.Unlock(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-results[i]; err != nil {
				t.Fatalf("waiter %d: %v", i, err)
			}
			synctest.Wait()
			if n := len(must(holder.LockInfo(t.Context(), "l"))(t, "LockInfo").Holders); n != 1 {
				t.Fatalf("%d holders after a release", n)
			}
			held = locks[i]
		}
		if !slices.Equal(order, []int{0, 2}) {
			t.Errorf("order: got %v", order)
		}
	})
}

// TestS3 stops the holder beyond its TTL: another one gets the lock with a higher token,
// and the guarded write of the old one fails.
func TestS3(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		a, pa := open(t, ks)
		b, _ := open(t, ks)
		ctx := t.Context()
		old := must(a.Lock(ctx, "l", nil))(t, "Lock")
		guarded := func(s client.Strong, h client.Held, value string) bool {
			res := must(s.Txn(ctx, &client.Txn{
				Compares: []client.Compare{client.Guard("l", h.Token())},
				Then:     []client.TxnOp{{Put: &client.TxnPut{Key: "x", Value: []byte(value)}}},
			}))(t, "Txn")
			return res.Succeeded
		}
		if !guarded(a, old, "a") {
			t.Fatal("the holder cannot write")
		}
		pa.hung.Store(true)
		next := must(b.Lock(within(t, time.Minute), "l", nil))(t, "Lock of the next one")
		if !isClosed(old.Lost()) {
			t.Error("another one has the lock, and the old holder does not know that it was lost")
		}
		pa.hung.Store(false)
		if guarded(a, old, "a again") {
			t.Error("the old holder could write")
		}
		if !guarded(b, next, "b") || next.Token() <= old.Token() {
			t.Errorf("the new holder: token %d after %d", next.Token(), old.Token())
		}
		if err := old.Unlock(ctx); !errors.Is(err, client.ErrSessionLost) {
			t.Errorf("Unlock of a lost lock: got %v", err)
		}
		// A new session is made for the next lock of the old process.
		must(a.Lock(ctx, "other", nil))(t, "Lock after a loss")
	})
}

// TestSuspended: the machine sleeps, and with it its timers and its monotonic clock.
func TestSuspended(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		var ahead atomic.Int64
		s := client.NewStrongAt(ks, named{name: "k"}, func() time.Duration { return time.Duration(ahead.Load()) })
		defer s.Close(context.Background())
		held := must(s.Lock(t.Context(), "l", nil))(t, "Lock")
		if isClosed(held.Lost()) {
			t.Fatal("lost at once")
		}
		ahead.Store(int64(time.Hour))
		if !isClosed(held.Lost()) {
			t.Error("it woke up as holder")
		}
		quiet := must(s.Lock(t.Context(), "quiet", nil))(t, "Lock")
		lost := quiet.Lost() // and nobody asks again
		ahead.Store(int64(2 * time.Hour))
		start := time.Now()
		<-lost
		if took := time.Since(start); took > time.Second {
			t.Errorf("the wall clock was looked at after %s", took)
		}
	})
}

// A session that is lost takes all its locks with it at once: whoever looks at any of
// them must not be told that it is held, while the others are told.
func TestAllLocksAreLostAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		a, p := open(t, ks)
		session := must(a.NewSession(t.Context(), &client.SessionOptions{TTL: 2 * time.Second}))(t, "NewSession")
		var locks []client.Held
		for i := range 1000 {
			locks = append(locks, must(a.Lock(t.Context(), fmt.Sprint(i), &client.LockOptions{Session: session}))(t, "Lock"))
		}
		lost := session.Lost()
		p.hung.Store(true)
		<-lost
		held := 0
		for _, l := range locks {
			if !isClosed(l.Lost()) {
				held++
			}
		}
		if held > 0 {
			t.Errorf("the session is lost, and %d of its locks are held", held)
		}
	})
}

// TestS6: calls hang for ever, and no connection breaks.
func TestS6(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 15 * time.Second, time.Hour} {
		t.Run(ttl.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
				s, p := open(t, ks)
				session := must(s.NewSession(t.Context(), &client.SessionOptions{TTL: ttl}))(t, "NewSession")
				held := must(s.Lock(t.Context(), "l", &client.LockOptions{Session: session}))(t, "Lock")
				time.Sleep(10 * ttl)
				synctest.Wait()
				if isClosed(held.Lost()) {
					t.Fatal("a session that is kept alive was lost")
				}
				p.hung.Store(true)
				start := time.Now()
				<-held.Lost()
				if took := time.Since(start); took > ttl || took < ttl/2 {
					t.Errorf("it was noticed after %s, TTL %s", took, ttl)
				}
				if !isClosed(session.Lost()) {
					t.Error("the session is not lost")
				}
				// The server must not be ahead of the holder.
				if len(ks.State().Holders("l")) != 1 {
					t.Error("the server gave the lock up before its holder knew")
				}
			})
		})
	}
}

// TestUnknownOutcomes: whether a call was carried out before its answer was lost or not,
// it takes effect once.
func TestUnknownOutcomes(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
				s, _ := open(t, ks)
				fail := func(n int) {
					var left atomic.Int64
					left.Store(int64(n))
					f := func(context.Context, *client.StrongCall) error {
						if left.Add(-1) >= 0 {
							return client.ErrUnknownOutcome
						}
						return nil
					}
					if when == "before" {
						ks.SetFaults(f, nil)
					} else {
						ks.SetFaults(nil, f)
					}
				}
				ctx := t.Context()
				fail(3)
				for range 2 {
					must(s.Txn(ctx, &client.Txn{Then: []client.TxnOp{{Put: &client.TxnPut{Key: "x", Value: []byte("1")}}}}))(t, "Txn")
					fail(2)
				}
				if e := ks.State().Get("x"); e == nil || e.Version != 2 {
					t.Errorf("two puts: got %+v", e)
				}
				pool := s.Allocator("p")
				fail(2)
				if err := pool.Define(ctx, 10, 19); err != nil {
					t.Fatal(err)
				}
				var blocks []client.Allocation
				for range 5 {
					fail(2)
					blocks = append(blocks, must(pool.Allocate(ctx, nil))(t, "Allocate"))
				}
				if got := must(pool.List(ctx))(t, "List"); !slices.Equal(got, blocks) {
					t.Errorf("blocks: got %+v, want %+v", got, blocks)
				}
				fail(3)
				if err := pool.Free(ctx, blocks[0].First, blocks[0].Token); err != nil {
					t.Errorf("Free: %v", err)
				}
				fail(3)
				session := must(s.NewSession(ctx, nil))(t, "NewSession")
				leases := 0
				for range ks.State().Leases {
					leases++
				}
				if leases != 1 {
					t.Errorf("%d sessions", leases)
				}
				fail(3)
				held := must(s.Lock(ctx, "l", &client.LockOptions{Session: session}))(t, "Lock")
				fail(3)
				if err := held.Unlock(ctx); err != nil {
					t.Errorf("Unlock: %v", err)
				}
				if n := len(ks.State().Holders("l")); n != 0 {
					t.Errorf("%d holders", n)
				}
				fail(3)
				if err := session.Close(ctx); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

// TestOpenOutcome: only a call whose time ended while its outcome was open is unknown.
func TestOpenOutcome(t *testing.T) {
	put := &client.Txn{Then: []client.TxnOp{{Put: &client.TxnPut{Key: "x"}}}}
	get := &client.Txn{Then: []client.TxnOp{{Get: &client.TxnGet{Key: "x"}}}}
	for _, tt := range []struct {
		name  string
		txn   *client.Txn
		fails []error // of the attempts; the last one goes on
		want  error
		not   error
	}{
		{"no quorum", put, []error{client.ErrNoQuorum}, client.ErrNoQuorum, client.ErrUnknownOutcome},
		{"not reachable", put, []error{client.ErrUnavailable}, client.ErrUnavailable, client.ErrUnknownOutcome},
		{"overloaded", put, []error{client.ErrOverloaded}, client.ErrOverloaded, client.ErrUnknownOutcome},
		{"unknown", put, []error{client.ErrUnknownOutcome}, client.ErrUnknownOutcome, nil},
		{"unknown once, then no quorum", put, []error{client.ErrUnknownOutcome, client.ErrNoQuorum}, client.ErrUnknownOutcome, nil},
		{"unknown once, then full", put, []error{client.ErrUnknownOutcome, client.ErrFull}, client.ErrUnknownOutcome, nil},
		{"unknown once, then refused by the keyspace", put, []error{client.ErrUnknownOutcome, client.ErrConflict}, client.ErrConflict, client.ErrUnknownOutcome},
		{"out of time", put, []error{context.DeadlineExceeded}, client.ErrUnknownOutcome, nil},
		{"a read out of time", get, []error{context.DeadlineExceeded}, client.ErrTimeout, client.ErrUnknownOutcome},
		{"denied", put, []error{client.ErrDenied}, client.ErrDenied, client.ErrUnknownOutcome},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
				s, _ := open(t, ks)
				var n atomic.Int64
				ks.SetFaults(func(context.Context, *client.StrongCall) error {
					return tt.fails[min(int(n.Add(1)), len(tt.fails))-1]
				}, nil)
				start := time.Now()
				_, err := s.Txn(within(t, 3*time.Second), tt.txn)
				ks.SetFaults(nil, nil)
				if !errors.Is(err, tt.want) || tt.not != nil && errors.Is(err, tt.not) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// TestGivenUpClaim: a claim whose caller gave up is taken back, even if it was granted at
// that moment, or nobody could be reached for a while.
func TestGivenUpClaim(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		s, p := open(t, ks)
		// The answer of the grant is lost, and nothing gets through for ten seconds.
		ks.SetFaults(nil, func(ctx context.Context, c *client.StrongCall) error {
			if c.Kind == client.CallAcquire {
				p.hung.Store(true)
				<-ctx.Done()
				return client.ErrUnknownOutcome
			}
			return nil
		})
		_, err := s.Lock(within(t, time.Second), "l", nil)
		if !errors.Is(err, client.ErrTimeout) || errors.Is(err, client.ErrUnknownOutcome) {
			t.Fatalf("got %v, want a timeout", err)
		}
		if len(ks.State().Holders("l")) != 1 {
			t.Fatal("the test is not of what it is about")
		}
		time.Sleep(8 * time.Second)
		p.hung.Store(false)
		ks.SetFaults(nil, nil)
		time.Sleep(6 * time.Second)
		if n := len(ks.State().Holders("l")); n != 0 {
			t.Errorf("%d holders", n)
		}
	})
}

// TestUnlockGoesOn: an Unlock that ran out of time gives the lock up nevertheless, though
// its session lives on.
func TestUnlockGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		s, _ := open(t, ks)
		held := must(s.Lock(t.Context(), "l", nil))(t, "Lock")
		ks.SetFaults(func(_ context.Context, c *client.StrongCall) error {
			if c.Kind == client.CallRelease {
				return client.ErrNoQuorum
			}
			return nil
		}, nil)
		if err := held.Unlock(within(t, time.Second)); !errors.Is(err, client.ErrUnknownOutcome) {
			t.Fatalf("got %v, want an unknown outcome", err)
		}
		time.Sleep(time.Minute)
		ks.SetFaults(nil, nil)
		if err := held.Unlock(t.Context()); err != nil {
			t.Errorf("the second Unlock: %v", err)
		}
		if n := len(ks.State().Holders("l")); n != 0 {
			t.Errorf("%d holders", n)
		}
	})
}

func TestOwnSession(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		s, _ := open(t, ks)
		sessions := func() (n int) {
			for range ks.State().Leases {
				n++
			}
			return n
		}
		held := must(s.Lock(t.Context(), "l", &client.LockOptions{TTL: time.Second}))(t, "Lock")
		if _, err := s.Lock(within(t, time.Second), "l", &client.LockOptions{TTL: time.Minute}); !errors.Is(err, client.ErrTimeout) {
			t.Fatalf("got %v", err)
		}
		if n := sessions(); n != 1 {
			t.Errorf("%d sessions, want that of the holder", n)
		}
		for range 2 {
			if err := held.Unlock(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := sessions(); n != 0 {
			t.Errorf("%d sessions after Unlock", n)
		}
		for i := range 3 {
			must(s.Lock(t.Context(), fmt.Sprint("shared", i), nil))(t, "Lock")
		}
		if n := sessions(); n != 1 {
			t.Errorf("%d sessions, want one that is shared", n)
		}
	})
}

func TestElection(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		a, _ := open(t, ks)
		b, pb := open(t, ks)
		w := must(b.Observe(t.Context(), "e"))(t, "Observe")
		next := func(want string, elected, known bool) {
			t.Helper()
			l := must(w.Next(within(t, time.Minute)))(t, "Next")
			if string(l.Value) != want || l.Elected != elected || l.Known != known {
				t.Fatalf("Next: got %+v, want %q %v %v", l, want, elected, known)
			}
		}
		next("", false, true)
		led := must(a.Campaign(t.Context(), "e", []byte("a"), nil))(t, "Campaign")
		next("a", true, true)
		if err := led.Proclaim(t.Context(), []byte("a2")); err != nil {
			t.Fatal(err)
		}
		next("a2", true, true)
		// Nobody answers: that is told once, and after it the state again.
		pb.hung.Store(true)
		start := time.Now()
		next("a2", true, false)
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("it took %s to doubt", took)
		}
		if _, err := w.Next(within(t, time.Minute)); !errors.Is(err, client.ErrTimeout) {
			t.Fatalf("it was told twice: %v", err)
		}
		pb.hung.Store(false)
		next("a2", true, true)
		if err := led.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		next("", false, true)
		if err := led.Proclaim(t.Context(), nil); !errors.Is(err, client.ErrNotHeld) {
			t.Errorf("Proclaim after the end: got %v", err)
		}
		waits := make(chan error)
		go func() {
			_, err := w.Next(context.Background())
			waits <- err
		}()
		synctest.Wait()
		w.Close()
		if err := <-waits; !errors.Is(err, client.ErrClosed) {
			t.Errorf("Next of a closed observer: got %v", err)
		}
	})
}

func TestPool(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		s, _ := open(t, ks)
		p, ctx := s.Allocator("p"), t.Context()
		if _, err := p.Allocate(ctx, nil); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("a pool that is not there: got %v", err)
		}
		if err := p.Define(ctx, 0, 7); err != nil {
			t.Fatal(err)
		}
		a := must(p.Allocate(ctx, &client.AllocateOptions{Size: 4, Align: 4, Label: "x"}))(t, "Allocate")
		for range 4 {
			must(p.Allocate(ctx, nil))(t, "Allocate")
		}
		if _, err := p.Allocate(ctx, nil); !errors.Is(err, client.ErrPoolExhausted) {
			t.Errorf("a full pool: got %v", err)
		}
		if got := must(p.List(ctx))(t, "List"); len(got) != 5 || got[0] != a {
			t.Errorf("List: got %+v", got)
		}
		if err := p.Free(ctx, a.First, a.Token+1); !errors.Is(err, client.ErrNotHeld) {
			t.Errorf("Free under another token: got %v", err)
		}
		if err := p.Remove(ctx); !errors.Is(err, client.ErrConflict) {
			t.Errorf("Remove of a pool in use: got %v", err)
		}
	})
}

func TestWrongUse(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		s, _ := open(t, ks)
		ctx := t.Context()
		other := client.NewStrong(strongtest.New("other"), named{name: "other"})
		defer other.Close(ctx)
		foreign := must(other.NewSession(ctx, nil))(t, "NewSession")
		before := ks.Calls()
		lock := func(name string, o *client.LockOptions) error {
			_, err := s.Lock(ctx, name, o)
			return err
		}
		session := func(ttl time.Duration) error {
			_, err := s.NewSession(ctx, &client.SessionOptions{TTL: ttl})
			return err
		}
		ops := make([]client.TxnOp, client.MaxTxnOps+1)
		for i := range ops {
			ops[i].Put = &client.TxnPut{Key: fmt.Sprint(i)}
		}
		for name, err := range map[string]error{
			"a lock without name":       lock("", nil),
			"a lock with a long name":   lock(strings.Repeat("x", 1025), nil),
			"a short TTL":               lock("l", &client.LockOptions{TTL: time.Millisecond}),
			"a long TTL":                session(25 * time.Hour),
			"a negative TTL":            session(-time.Second),
			"a long delay":              lock("l", &client.LockOptions{Delay: 25 * time.Hour}),
			"a session and a TTL":       lock("l", &client.LockOptions{Session: foreign, TTL: time.Minute}),
			"a session of another":      lock("l", &client.LockOptions{Session: foreign}),
			"no places":                 func() error { _, err := s.Semaphore(ctx, "l", 0, nil); return err }(),
			"too many operations":       func() error { _, err := s.Txn(ctx, &client.Txn{Then: ops}); return err }(),
			"no transaction":            func() error { _, err := s.Txn(ctx, nil); return err }(),
			"an empty pool":             s.Allocator("p").Define(ctx, 2, 1),
			"a pool without name":       s.Allocator("").Remove(ctx),
			"a place that is not exact": func() error { _, err := s.Allocator("p").Allocate(ctx, &client.AllocateOptions{At: 5}); return err }(),
			"an observer of no name":    func() error { _, err := s.Observe(ctx, ""); return err }(),
		} {
			if !errors.Is(err, client.ErrBadRequest) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if n := ks.Calls() - before; n != 0 {
			t.Errorf("%d calls were made", n)
		}
	})
}

func TestCloseEndsSessions(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		s := client.NewStrong(ks, named{name: "k"})
		ctx := t.Context()
		var all []client.Held
		for i := range 10 {
			all = append(all, must(s.Lock(ctx, fmt.Sprint(i), &client.LockOptions{TTL: time.Minute}))(t, "Lock"))
		}
		for range 2 {
			if err := s.Close(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for range ks.State().Leases {
			t.Error("a session is left")
		}
		for _, h := range all {
			if !isClosed(h.Lost()) {
				t.Error("a lock is left")
			}
		}
		if _, err := s.Lock(ctx, "l", nil); !errors.Is(err, client.ErrClosed) {
			t.Errorf("Lock of a closed handle: got %v", err)
		}
	})
}

// TestManyInFlight: the keyspace remembers the last 128 results of a client; a call that
// is in flight for long is not forgotten behind many others.
func TestManyInFlight(t *testing.T) {
	bubble(t, func(t *testing.T, ks *strongtest.Keyspace) {
		s, _ := open(t, ks)
		var slow atomic.Bool
		ks.SetFaults(nil, func(ctx context.Context, c *client.StrongCall) error {
			if c.Kind == client.CallTxn && c.Txn.Then[0].Put.Key == "slow" && slow.CompareAndSwap(false, true) {
				time.Sleep(3 * time.Second) // applied, and its answer is lost
				return client.ErrUnknownOutcome
			}
			return nil
		})
		put := func(key string) error {
			_, err := s.Txn(t.Context(), &client.Txn{Then: []client.TxnOp{{Put: &client.TxnPut{Key: key}}}})
			return err
		}
		done := make(chan error)
		go func() { done <- put("slow") }()
		synctest.Wait()
		for range 300 {
			if err := put("quick"); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Errorf("the slow one: %v", err)
		}
		if e := ks.State().Get("slow"); e == nil || e.Version != 1 {
			t.Errorf("the slow one: got %+v", e)
		}
	})
}
