package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
)

// A proposer is a caller of the batcher; the fields are final once done is closed.
type proposer struct {
	done    chan struct{}
	took    time.Duration
	outcome outcome
	err     error
}

// propose begins a call, and returns when it waits for its outcome.
func propose(ctx context.Context, m *member, cmd []byte) *proposer {
	p := &proposer{done: make(chan struct{})}
	begin := time.Now()
	go func() {
		defer close(p.done)
		p.outcome, p.err = m.batcher.propose(ctx, cmd)
		p.took = time.Since(begin)
	}()
	synctest.Wait()
	return p
}

// commandsOf splits an entry.
func commandsOf(entry []byte) (cmds [][]byte) {
	splitEntry(entry, func(cmd []byte) { cmds = append(cmds, cmd) })
	return cmds
}

// What gathers while an entry is on its way goes in the order of its coming, in entries of batchBytes at
// most, or of one command that is longer; each caller gets what became of his own.
func TestBatchBounds(t *testing.T) {
	run(t, 1, func(t *testing.T, r *rig) {
		m := r.members[0]
		m.log.shut()
		sizes := []int{1, batchBytes / 2, batchBytes / 3, batchBytes / 4, batchBytes + 1, 10, 10, batchBytes - 300, 300, 1, 1}
		var cmds [][]byte
		var callers []*proposer
		for i, n := range sizes {
			cmds = append(cmds, encoded(t, put(fmt.Sprint("key", i), make([]byte, n))))
			callers = append(callers, propose(t.Context(), m, cmds[i]))
		}
		m.log.open()
		for i, p := range callers {
			<-p.done
			if p.err != nil || p.outcome.result.Err != nil || p.outcome.index != uint64(i+1) {
				t.Errorf("command %d: index %d, %v, %v", i, p.outcome.index, p.outcome.result.Err, p.err)
			}
		}
		next := 0
		entries := m.log.entries()
		for i, entry := range entries {
			size := 0
			in := commandsOf(entry)
			for _, cmd := range in {
				size += len(cmd)
				if next == len(cmds) || !bytes.Equal(cmd, cmds[next]) {
					t.Fatalf("entry %d has another command than the one at %d", i, next)
				}
				next++
			}
			if size > batchBytes && len(in) > 1 {
				t.Errorf("entry %d has %d commands of %d bytes", i, len(in), size)
			}
		}
		if next != len(cmds) {
			t.Errorf("%d of %d commands are in the log", next, len(cmds))
		}
		// The first alone; 1/2+1/3 and 1/4 exceed the bound; the long one alone.
		if len(commandsOf(entries[0])) != 1 || len(commandsOf(entries[1])) != 2 || len(entries) > 6 {
			t.Errorf("%d entries, the first of %d and %d commands", len(entries), len(commandsOf(entries[0])), len(commandsOf(entries[1])))
		}
	})
}

// A caller gets the result of his own command, whatever his neighbours' did.
func TestBatchOutcomes(t *testing.T) {
	run(t, 1, func(t *testing.T, r *rig) {
		m := r.members[0]
		m.log.shut()
		first := propose(t.Context(), m, encoded(t, put("a", []byte("1"))))
		absent := []machine.Compare{{Span: machine.Span{Key: "b"}, Target: machine.TargetVersion, Relation: machine.Equal}}
		create := &machine.Txn{Compares: absent, Then: []machine.Op{&machine.Put{Key: "b"}}}
		won := propose(t.Context(), m, encoded(t, create))
		missing := propose(t.Context(), m, encoded(t, &machine.Revoke{ID: 99}))
		lost := propose(t.Context(), m, encoded(t, create))
		m.log.open()
		for _, p := range []*proposer{first, won, missing, lost} {
			<-p.done
			if p.err != nil {
				t.Fatal(p.err)
			}
		}
		if !errors.Is(missing.outcome.result.Err, machine.ErrLeaseNotFound) {
			t.Errorf("revoke: %v", missing.outcome.result.Err)
		}
		if !won.outcome.result.Txn.Succeeded || lost.outcome.result.Txn.Succeeded {
			t.Errorf("the first create: %+v, the second: %+v", won.outcome.result.Txn, lost.outcome.result.Txn)
		}
		if n := len(m.log.entries()); n != 2 {
			t.Errorf("%d entries, want the first command's and one of three", n)
		}
	})
}

// A batch waits for as many as the one before had, but not for ever, and no longer than until they are there. One
// caller alone never waits.
func TestLinger(t *testing.T) {
	run(t, 1, func(t *testing.T, r *rig) {
		m := r.members[0]
		cmd := encoded(t, put("a", nil))
		for range 5 {
			p := propose(t.Context(), m, cmd)
			if <-p.done; p.err != nil || p.took != 0 {
				t.Fatalf("one alone waited for %v: %v", p.took, p.err)
			}
		}
		m.log.shut()
		var all []*proposer
		for range 4 { // the first goes alone, the others as one
			all = append(all, propose(t.Context(), m, cmd))
		}
		m.log.open()
		for _, p := range all {
			<-p.done
		}
		// As many as before: at once.
		before := len(m.log.entries())
		begin := time.Now()
		all = nil
		for range 3 {
			all = append(all, propose(t.Context(), m, cmd))
		}
		for _, p := range all {
			if <-p.done; p.err != nil {
				t.Fatal(p.err)
			}
		}
		if took, n := time.Since(begin), len(m.log.entries())-before; took != 0 || n != 1 {
			t.Errorf("as many as before took %v and %d entries, want one at once", took, n)
		}
		// Fewer: they wait, for a time that is bounded, and go as one.
		before = len(m.log.entries())
		begin = time.Now()
		one, two := propose(t.Context(), m, cmd), propose(t.Context(), m, cmd)
		if n := len(m.log.entries()) - before; n != 0 {
			t.Errorf("two where three are expected went at once, in %d entries", n)
		}
		<-one.done
		<-two.done
		if took, n := time.Since(begin), len(m.log.entries())-before; took == 0 || took > attemptTimeout || n != 1 {
			t.Errorf("two where three are expected took %v and %d entries", took, n)
		}
	})
}

// What waits is bounded: what does not fit is refused and never applied, all the rest is applied.
func TestBackPressure(t *testing.T) {
	run(t, 1, func(t *testing.T, r *rig) {
		m := r.members[0]
		m.log.shut()
		value := make([]byte, machine.MaxValue)
		var callers []*proposer
		for i := 0; ; i++ {
			p := propose(t.Context(), m, encoded(t, put(fmt.Sprint("key", i), value)))
			callers = append(callers, p)
			if i > queuedBytes/machine.MaxValue+1 {
				t.Fatalf("%d MiB are queued", i)
			}
			select {
			case <-p.done:
			default:
				continue
			}
			break
		}
		refused := len(callers) - 1
		if err := callers[refused].err; !errors.Is(err, group.ErrOverloaded) || !errors.Is(err, group.ErrNotApplied) {
			t.Fatalf("command %d: %v, want ErrOverloaded and ErrNotApplied", refused, err)
		}
		if refused < queuedBytes/machine.MaxCommand {
			t.Errorf("refused after %d MiB", refused)
		}
		m.log.open()
		for i, p := range callers[:refused] {
			if <-p.done; p.err != nil || p.outcome.result.Err != nil {
				t.Errorf("command %d: %v, %v", i, p.err, p.outcome.result.Err)
			}
		}
		p := propose(t.Context(), m, encoded(t, put("later", nil)))
		if <-p.done; p.err != nil {
			t.Errorf("after the queue went down: %v", p.err)
		}
		view := m.View()
		if view.Get(fmt.Sprint("key", refused)) != nil {
			t.Error("a refused command was applied")
		}
		if got := view.Status().Applied; got != uint64(refused+1) {
			t.Errorf("%d commands were applied, want %d", got, refused+1)
		}
	})
}

// Who gives up before his command went learns that it is not applied, and it never is; who gives up
// afterwards does not know, and it may be.
func TestGivingUp(t *testing.T) {
	run(t, 1, func(t *testing.T, r *rig) {
		m := r.members[0]
		m.log.shut()
		ctx, cancel := context.WithCancel(t.Context())
		gone := encoded(t, put("went", []byte("x")))
		went := propose(ctx, m, gone)
		waited := propose(ctx, m, encoded(t, put("waited", []byte("x"))))
		stays := propose(t.Context(), m, encoded(t, put("stays", []byte("x"))))
		cancel()
		<-went.done
		<-waited.done
		clear(gone) // its caller may use the bytes again
		if !errors.Is(went.err, group.ErrUnknownOutcome) || errors.Is(went.err, group.ErrNotApplied) {
			t.Errorf("on its way: %v, want ErrUnknownOutcome", went.err)
		}
		if !errors.Is(waited.err, group.ErrNotApplied) || errors.Is(waited.err, group.ErrUnknownOutcome) {
			t.Errorf("queued: %v, want ErrNotApplied", waited.err)
		}
		m.log.open()
		if <-stays.done; stays.err != nil {
			t.Fatal(stays.err)
		}
		v := m.View()
		if valueAt(v, "went") != "x" || v.Get("waited") != nil || valueAt(v, "stays") != "x" || v.Status().Applied != 2 {
			t.Errorf("went %v, waited %v, stays %v, %d commands", v.Get("went"), v.Get("waited"), v.Get("stays"), v.Status().Applied)
		}
	})
}

// A batcher that is closed refuses what waits and what comes, and tells what becomes of what is on its way.
func TestClosedBatcher(t *testing.T) {
	run(t, 1, func(t *testing.T, r *rig) {
		m := r.members[0]
		m.log.shut()
		went := propose(t.Context(), m, encoded(t, put("went", []byte("x"))))
		waits := propose(t.Context(), m, encoded(t, put("waits", nil)))
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			m.batcher.close()
		}()
		<-waits.done
		comes := propose(t.Context(), m, encoded(t, put("comes", nil)))
		<-comes.done
		for name, p := range map[string]*proposer{"waits": waits, "comes": comes} {
			if !errors.Is(p.err, group.ErrNotApplied) || !errors.Is(p.err, group.ErrClosed) {
				t.Errorf("%s: %v, want ErrNotApplied and ErrClosed", name, p.err)
			}
		}
		select {
		case <-closed:
			t.Error("closed while an entry was on its way")
		default:
		}
		m.log.open()
		<-closed
		if <-went.done; went.err != nil || m.View().Status().Applied != 1 {
			t.Errorf("on its way: %v, %d commands", went.err, m.View().Status().Applied)
		}
	})
}

// A leader that is cut off does not know of what it has sent, and has certainly not sent what waited.
func TestLeaderLost(t *testing.T) {
	run(t, 3, func(t *testing.T, r *rig) {
		old := r.leader()
		mustDo(t, old, put("before", []byte("x")))
		r.isolate(old, true)
		went := propose(t.Context(), old, encoded(t, put("went", []byte("x"))))
		waited := propose(t.Context(), old, encoded(t, put("waited", []byte("x"))))
		next := r.leader(r.followers(old)...)
		<-went.done
		<-waited.done
		if !errors.Is(went.err, group.ErrUnknownOutcome) || errors.Is(went.err, group.ErrNotApplied) {
			t.Errorf("on its way: %v, want ErrUnknownOutcome", went.err)
		}
		if !errors.Is(waited.err, group.ErrNotApplied) || !errors.Is(waited.err, group.ErrNotLeader) || errors.Is(waited.err, group.ErrUnknownOutcome) {
			t.Errorf("queued: %v, want ErrNotApplied and ErrNotLeader", waited.err)
		}
		d := mustDo(t, next, put("after", []byte("x")))
		r.isolate(old, false)
		r.leader()
		v, err := old.ViewAt(t.Context(), d.Index)
		if err != nil {
			t.Fatal(err)
		}
		if valueAt(v, "before") != "x" || valueAt(v, "after") != "x" || v.Get("waited") != nil || v.Get("went") != nil {
			t.Errorf("before %v, after %v, waited %v, went %v", v.Get("before"), v.Get("after"), v.Get("waited"), v.Get("went"))
		}
	})
}
