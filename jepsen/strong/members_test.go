//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A memberRig is five servers, a keyspace with three voters, and clients at work on it all the time.
type memberRig struct {
	t       *testing.T
	ctx     context.Context
	c       *cluster
	h       *history
	w       *writes
	x       *watcher
	stop    func() // the workload, which is over then
	working sync.WaitGroup
	follow  sync.WaitGroup
}

func newMemberRig(t *testing.T, ctx context.Context) *memberRig {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCluster(5, false, binary, t.TempDir())
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	c.voters = 3
	if err := c.start(ctx, keyspaceName); err != nil {
		t.Fatal(err)
	}
	r := &memberRig{t: t, ctx: ctx, c: c, h: newHistory(), w: newWrites()}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	following, end := context.WithCancel(ctx)
	t.Cleanup(func() {
		end()
		r.follow.Wait()
	})
	r.x = &watcher{name: "watch", c: c, keyspace: keyspaceName, last: lastKey, stay: time.Second, cursor: "1"}
	r.follow.Go(func() { r.x.run(following, rand.New(rand.NewPCG(seed, 1))) })
	working, stop := context.WithCancel(ctx)
	r.stop = func() {
		stop()
		r.working.Wait()
	}
	t.Cleanup(r.stop)
	r.working.Go(func() {
		if err := (&registers{c, keyspaceName, r.h, r.w}).run(working, 2, seed); err != nil {
			t.Error(err)
		}
	})
	return r
}

// acknowledged counts the writes so far.
func (r *memberRig) acknowledged() int {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return len(r.w.done)
}

// progress waits until so many more writes were acknowledged.
func (r *memberRig) progress(n int) {
	r.t.Helper()
	for from := r.acknowledged(); r.acknowledged() < from+n; {
		if pause(r.ctx, 10*time.Millisecond); r.ctx.Err() != nil {
			r.t.Fatalf("%d writes since the change, want %d", r.acknowledged()-from, n)
		}
	}
}

// info asks the servers until one knows the keyspace and its leader.
func (r *memberRig) info() client.StrongInfo {
	r.t.Helper()
	for {
		for _, s := range r.c.nodes {
			if s.end == nil {
				continue
			}
			attempt, cancel := context.WithTimeout(r.ctx, time.Second)
			i, err := s.client.StrongInfo(attempt, keyspaceName)
			cancel()
			if err == nil && i.Leader != "" {
				return i
			}
		}
		if pause(r.ctx, 20*time.Millisecond); r.ctx.Err() != nil {
			r.t.Fatal("nobody knows the leader")
		}
	}
}

func voterNames(i client.StrongInfo) (names []string) {
	for _, v := range i.Voters {
		if v.Role == "voter" {
			names = append(names, v.Server)
		}
	}
	return names
}

func (r *memberRig) server(name string) *server {
	i := slices.IndexFunc(r.c.nodes, func(s *server) bool { return s.name == name })
	return r.c.nodes[i]
}

// change has a change of members made, at a server that it does not concern. While it is made, writes go on.
func (r *memberRig) change(what string, but string, op func(context.Context, *client.Client) error) {
	r.t.Helper()
	from, begin := r.acknowledged(), time.Now()
	i := slices.IndexFunc(r.c.nodes, func(s *server) bool { return s.name != but && s.end != nil })
	bounded, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	if err := op(bounded, r.c.nodes[i].client); err != nil {
		for _, name := range []string{keyspaceName, "_system"} {
			for _, s := range r.c.nodes {
				look, cancel := context.WithTimeout(r.ctx, time.Second)
				now, err := s.client.StrongInfo(look, name)
				cancel()
				r.t.Logf("%s at %s: leader %s, term %d, applied %d, voters %+v, %v", name, s.name, now.Leader, now.Term, now.Applied, now.Voters, err)
			}
		}
		r.t.Fatalf("%s: %v, %d writes meanwhile", what, err, r.acknowledged()-from)
	}
	r.t.Logf("%s: %v, %d writes meanwhile, voters %v", what, time.Since(begin).Round(time.Millisecond), r.acknowledged()-from, voterNames(r.info()))
	r.progress(20)
}

// judge ends the workload and looks at all that was done.
func (r *memberRig) judge() {
	r.t.Helper()
	r.stop()
	bad, undecided := r.h.problems()
	i := slices.IndexFunc(r.c.nodes, func(s *server) bool { return s.end != nil })
	ks, err := r.c.nodes[i].client.Strong(r.ctx, keyspaceName)
	if err != nil {
		r.t.Fatal(err)
	}
	r.w.tried(lastKey, "end")
	if _, err := ks.Put(r.ctx, lastKey, []byte("end"), nil); err != nil {
		r.t.Fatal(err)
	}
	for !r.x.over() && r.ctx.Err() == nil {
		pause(r.ctx, 10*time.Millisecond)
	}
	if !r.x.over() || r.x.broken != "" {
		bad = append(bad, fmt.Sprintf("the watch came to %d changes, %s", len(r.x.shown), r.x.broken))
	}
	bad = append(bad, r.w.problems("watch", r.x.shown)...)
	for _, p := range append(bad, undecided...) {
		r.t.Error(p)
	}
}

// While clients write, a voter is added and the leader removed, and then the server that leads next is emptied
// and stopped: writes go on all the time, and none that was acknowledged is lost. The server is emptied with
// MESH_LONG=1 alone: it takes some 20 s.
func TestMembersChangeUnderLoad(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := newMemberRig(t, ctx)
	r.progress(20)
	before := r.info()
	i := slices.IndexFunc(r.c.nodes, func(s *server) bool { return !slices.Contains(voterNames(before), s.name) })
	added := r.c.nodes[i].name
	r.change("add "+added, "", func(ctx context.Context, c *client.Client) error { return c.AddVoter(ctx, keyspaceName, added) })
	if now := voterNames(r.info()); !slices.Contains(now, added) {
		t.Fatalf("%s was added, voters %v", added, now)
	}
	removed := r.info().Leader
	r.change("remove the leader "+removed, removed, func(ctx context.Context, c *client.Client) error {
		return c.RemoveVoter(ctx, keyspaceName, removed)
	})
	if now := r.info(); slices.Contains(voterNames(now), removed) || now.Leader == removed {
		t.Fatalf("%s was removed, voters %v, leader %s", removed, voterNames(now), now.Leader)
	}
	if os.Getenv("MESH_LONG") == "" {
		r.judge()
		return
	}
	gone := r.info().Leader
	r.change("decommission the leader "+gone, gone, func(ctx context.Context, c *client.Client) error { return c.Decommission(ctx, gone) })
	for _, name := range []string{keyspaceName, "_system"} {
		at := slices.IndexFunc(r.c.nodes, func(s *server) bool { return s.name != gone })
		i, err := r.c.nodes[at].client.StrongInfo(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(i.Voters, func(v client.StrongVoter) bool { return v.Server == gone }) || len(voterNames(i)) < 3 {
			t.Errorf("%s after the decommission of %s: %+v", name, gone, i.Voters)
		}
	}
	s := r.server(gone)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-s.end; err != nil {
		t.Errorf("%s, which was emptied, ended badly: %v", gone, err)
	}
	s.end = nil
	r.progress(50)
	r.judge()
}

// While clients write, two of three voters are killed for good. With a majority alive a recovery is refused; without
// one the keyspace begins anew with the third: writes go on, what the survivor had is there, and no
// revision is given again. MESH_LONG=1: it takes the time until the killed ones count as dead.
func TestRecoverUnderLoad(t *testing.T) {
	if os.Getenv("MESH_LONG") == "" {
		t.Skip("MESH_LONG=1 runs it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r := newMemberRig(t, ctx)
	r.progress(100)
	i := r.info()
	voters := voterNames(i)
	survivor := r.server(voters[0])
	if _, err := survivor.client.RecoverKeyspace(ctx, keyspaceName, survivor.name); !errors.Is(err, client.ErrConflict) {
		t.Fatalf("a recovery with all alive: %v, want ErrConflict", err)
	}
	r.progress(20)
	for _, name := range voters[1:] {
		s := r.server(name)
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-s.end
		s.end = nil
	}
	had, err := survivor.client.StrongInfo(ctx, keyspaceName) // of its own replica
	if err != nil {
		t.Fatal(err)
	}
	r.w.mu.Lock()
	acknowledged := slices.Clone(r.w.done)
	r.w.mu.Unlock()
	begin := func(name string) {
		for {
			report, err := survivor.client.RecoverKeyspace(ctx, name, survivor.name)
			if err == nil {
				t.Logf("recovered %s: %+v", name, report)
				return
			}
			if pause(ctx, 200*time.Millisecond); ctx.Err() != nil {
				t.Fatalf("recover %s: %v", name, err)
			}
		}
	}
	system, err := survivor.client.StrongInfo(ctx, "_system")
	alive := 0
	for _, v := range system.Voters {
		if r.server(v.Server).end != nil {
			alive++
		}
	}
	t.Logf("_system: %d of %d voters are left, %v", alive, len(system.Voters), err)
	if 2*alive <= len(system.Voters) {
		begin("_system")
	}
	begin(keyspaceName)
	r.progress(50)
	r.stop()

	highest := uint64(0)
	lost := 0
	ks, err := survivor.client.Strong(ctx, keyspaceName)
	if err != nil {
		t.Fatal(err)
	}
	newest := make(map[string]change)
	for _, c := range acknowledged {
		highest = max(highest, c.revision)
		if c.revision > newest[c.key].revision {
			newest[c.key] = c
		}
	}
	for key, c := range newest {
		var e client.Entry
		for {
			if e, err = ks.Get(ctx, key, nil); err == nil || errors.Is(err, client.ErrNotFound) || ctx.Err() != nil {
				break
			}
			pause(ctx, 50*time.Millisecond)
		}
		switch {
		case e.Version.Seq >= c.revision || c.value == "" && errors.Is(err, client.ErrNotFound):
		case c.revision <= had.Revision && e.Version.Seq < c.revision && !r.mayBeDeleted(c):
			t.Errorf("%s of revision %d, which the survivor had at %d, is %q, %v", key, c.revision, had.Revision, e.Value, err)
		default:
			lost++
		}
	}
	v, err := ks.Put(ctx, "after", []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if v.Seq <= highest {
		t.Errorf("revision %d after the recovery, %d was given before", v.Seq, highest)
	}
	t.Logf("%d keys, %d newest writes lost, the survivor had revision %d of %d", len(newest), lost, had.Revision, highest)
}

// mayBeDeleted reports whether a delete of that key was tried: one of unknown outcome may have come later.
func (r *memberRig) mayBeDeleted(c change) bool {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.w.tries[[2]string{c.key, ""}]
}
