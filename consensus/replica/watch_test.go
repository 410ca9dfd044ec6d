package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/machine"
)

// A follow collects what one watcher shows.
type follow struct {
	prefix string
	w      *Watcher
	from   machine.Revision
	shown  []*machine.Change
	err    error
	done   chan struct{}
}

// run reads until the watcher has come to a revision, resting now and then.
func (f *follow) run(ctx context.Context, until machine.Revision, rest func()) {
	defer close(f.done)
	defer f.w.Close()
	for f.w.Progress() < until {
		var changes []*machine.Change
		if changes, f.err = f.w.Next(ctx); f.err != nil {
			return
		}
		f.shown = append(f.shown, changes...)
		if len(changes) > 0 && changes[len(changes)-1].Revision >= until {
			return
		}
		rest()
	}
}

// Watchers at every member, of any prefix and from any revision, show all that changed and concerns them, in
// order and once, whether they are slow or begin late.
func TestWatchesAreComplete(t *testing.T) {
	const revisions = 2 * eventsAtOnce
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	run(t, 3, func(t *testing.T, r *rig) {
		rng := rand.New(rand.NewPCG(seed, 0))
		leader := r.leader()
		var model []string // by order: revision, key and value
		last := leader.View().Status().Revision
		first := last + 1
		end := last + revisions
		var follows []*follow
		begin := func(m *member, prefix string, from machine.Revision) {
			w, err := m.Watch(prefix, from)
			if err != nil {
				t.Fatalf("watch %q from %d at revision %d: %v", prefix, from, m.View().Status().Revision, err)
			}
			f := &follow{prefix: prefix, w: w, from: from, done: make(chan struct{})}
			follows = append(follows, f)
			slow := rng.IntN(3) == 0
			go f.run(t.Context(), end, func() {
				if slow {
					time.Sleep(time.Duration(1+len(f.shown)%50) * time.Millisecond)
				}
			})
		}
		prefixes := []string{"", "a", "a/", "a/1", "b/", "end"}
		for _, m := range r.members {
			for _, prefix := range prefixes {
				begin(m, prefix, first)
			}
		}
		for rev := first; rev <= end; rev++ {
			key := fmt.Sprintf("%c/%d", 'a'+rng.IntN(3), rng.IntN(3))
			txn := put(key, fmt.Append(nil, rev))
			model = append(model, fmt.Sprint(rev, " ", key, " ", rev))
			if rev == end || rng.IntN(3) == 0 { // several in one revision; the last one concerns all
				for _, more := range prefixes {
					if more != "" && (rev == end || rng.IntN(2) == 0) {
						k := more + "/more"
						txn.Then = append(txn.Then, &machine.Put{Key: k, Value: []byte("m")})
						model = append(model, fmt.Sprint(rev, " ", k, " m"))
					}
				}
			}
			if d := mustDo(t, leader, txn); d.Revision != rev {
				t.Fatalf("revision %d, want %d", d.Revision, rev)
			}
			if rng.IntN(200) == 0 {
				m := r.members[rng.IntN(3)]
				begin(m, prefixes[rng.IntN(len(prefixes))], first+machine.Revision(rng.IntN(int(m.View().Status().Revision-first)+2)))
			}
		}
		for _, f := range follows {
			<-f.done
			if f.err != nil {
				t.Fatal(f.err)
			}
			var want []string
			for _, line := range model {
				var rev machine.Revision
				var key string
				fmt.Sscan(line, &rev, &key)
				if rev >= f.from && strings.HasPrefix(key, f.prefix) {
					want = append(want, line)
				}
			}
			for i, c := range f.shown {
				got := fmt.Sprint(c.Revision, " ", c.Key(), " ", string(c.Next.Value))
				if i >= len(want) || got != want[i] {
					t.Fatalf("watch %q from %d: change %d is %q, want %q", f.prefix, f.from, i, got, want[min(i, len(want)-1)])
				}
			}
			if len(f.shown) != len(want) {
				t.Fatalf("watch %q from %d: %d changes, want %d", f.prefix, f.from, len(f.shown), len(want))
			}
		}
		for _, m := range r.members {
			m.state.mu.Lock()
			if h := &m.state.hub; len(h.prefixes)+len(h.lengths)+len(h.woken) > 0 {
				t.Errorf("%s keeps %d prefixes of watchers that are closed", m.node, len(h.prefixes))
			}
			m.state.mu.Unlock()
		}
	})
}

// A watch from a revision that is not there any more, or not yet, is refused by name; one that is overtaken by
// a compaction ends so, and never leaves out silently.
func TestWatchLimits(t *testing.T) {
	run(t, 1, func(t *testing.T, r *rig) {
		m := r.members[0]
		var revision machine.Revision
		for range 10 {
			revision = mustDo(t, m, put("key", nil)).Revision
		}
		if _, err := m.Watch("", revision+2); !errors.Is(err, machine.ErrFutureRevision) {
			t.Errorf("from two revisions ahead: %v", err)
		}
		behind, err := m.Watch("", revision-8)
		if err != nil {
			t.Fatal(err)
		}
		mustDo(t, m, &machine.Compact{Revision: revision - 2})
		if changes, err := behind.Next(t.Context()); !errors.Is(err, machine.ErrCompacted) {
			t.Errorf("one that was overtaken: %d changes, %v", len(changes), err)
		}
		behind.Close()
		if _, err := m.Watch("", revision-8); !errors.Is(err, machine.ErrCompacted) {
			t.Errorf("from a revision that is gone: %v", err)
		}
		next, err := m.Watch("", revision+1)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := next.Next(t.Context())
			ended <- err
		}()
		synctest.Wait()
		for range 2 {
			next.Close()
		}
		if err := <-ended; !errors.Is(err, ErrWatchClosed) {
			t.Errorf("closed while it waits: %v", err)
		}
	})
}

// A watcher costs a write nothing that concerns others.
func TestOnlyThoseConcernedWake(t *testing.T) {
	run(t, 1, func(t *testing.T, r *rig) {
		m := r.members[0]
		_, w := m.WatchState("mine/")
		defer w.Close()
		mustDo(t, m, put("other", nil))
		if len(w.wake) != 0 {
			t.Error("woken by another's key")
		}
		d := mustDo(t, m, put("mine/1", nil))
		if len(w.wake) != 1 {
			t.Error("not woken by its own")
		}
		changes, err := w.Next(t.Context())
		if err != nil || len(changes) != 1 || changes[0].Key() != "mine/1" || w.Progress() != d.Revision {
			t.Errorf("%d changes, %v, progress %d of %d", len(changes), err, w.Progress(), d.Revision)
		}
	})
}
