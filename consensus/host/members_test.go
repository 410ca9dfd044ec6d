package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/placement"
)

// quick replaces dead voters soon.
var quick = placement.Policy{ReplaceAfter: 300 * time.Millisecond, GiveUpAfter: 2 * time.Second}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

func members(e host.Entry) (names []string) {
	for _, m := range e.Keyspace.Members {
		if !m.Learner {
			names = append(names, m.ID)
		}
	}
	slices.Sort(names)
	return names
}

func (c *cluster) create(ctx context.Context, at, name string, voters int) host.Entry {
	c.t.Helper()
	e, err := c.hosts[at].Create(ctx, host.Spec{Name: name, Voters: voters})
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

func TestRestartGoesOn(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	names := []string{"a", "b", "c"}
	for _, name := range names {
		c.start(name, names...)
	}
	c.create(ctx, "a", "ks", 3)
	putKey(t, ctx, replicaOf(t, ctx, c.hosts["a"], "ks"), "key", "before")
	for _, name := range names {
		c.stop(name)
	}
	for _, name := range names {
		c.start(name, names...)
	}
	for _, name := range names {
		v, err := replicaOf(t, ctx, c.hosts[name], "ks").Read(ctx)
		if err != nil {
			t.Fatalf("read at %s: %v", name, err)
		}
		if e := v.Get("key"); e == nil || string(e.Value) != "before" {
			t.Fatalf("%s lost the key: %v", name, e)
		}
	}
}

func TestLeaderGone(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	names := []string{"a", "b", "c"}
	for _, name := range names {
		c.start(name, names...)
	}
	c.create(ctx, "a", "ks", 3)
	for range 3 {
		leader := c.leaderOf(ctx, names[0], "ks")
		c.stop(leader)
		for _, name := range names {
			if name != leader {
				putKey(t, ctx, replicaOf(t, ctx, c.hosts[name], "ks"), "key", "without "+leader)
			}
		}
		c.start(leader, names...)
		v, err := replicaOf(t, ctx, c.hosts[leader], "ks").Read(ctx)
		if err != nil || string(v.Get("key").Value) != "without "+leader {
			t.Fatalf("%s came back: %v", leader, err)
		}
	}
}

// TestDeadVoterReplaced: a voter whose server stays away is replaced by a spare one, which
// then holds everything.
func TestDeadVoterReplaced(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	c.policy = quick
	names := []string{"a", "b", "c"}
	for _, name := range names {
		c.start(name, names...)
	}
	c.create(ctx, "a", "ks", 3)
	putKey(t, ctx, replicaOf(t, ctx, c.hosts["a"], "ks"), "key", "value")
	c.start("d")
	c.stop("c")
	if err := c.hosts["a"].AwaitVoter(ctx, "ks", "d", true); err != nil {
		t.Fatal(err)
	}
	if err := c.hosts["a"].AwaitVoter(ctx, "ks", "c", false); err != nil {
		t.Fatal(err)
	}
	v, err := replicaOf(t, ctx, c.hosts["d"], "ks").Read(ctx)
	if err != nil || string(v.Get("key").Value) != "value" {
		t.Fatalf("at d: %v", err)
	}
}

// TestLostDiskReplaced: a server that comes back without its disk is added under another id, and
// its old replica removed; it never begins the group anew.
func TestLostDiskReplaced(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	c.policy = quick
	names := []string{"a", "b", "c"}
	for _, name := range names {
		c.start(name, names...)
	}
	before := members(c.create(ctx, "a", "ks", 3))
	putKey(t, ctx, replicaOf(t, ctx, c.hosts["a"], "ks"), "key", "value")
	c.stop("c")
	c.wipe("c")
	c.start("c", names...)
	for {
		e, _ := c.hosts["a"].Entry("ks")
		now := members(e)
		if len(now) == 3 && e.Keyspace.Change == nil && !slices.Equal(now, before) {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("members are %v, before %v, change %+v", now, before, e.Keyspace.Change)
		}
		pause(ctx, 50*time.Millisecond)
	}
	v, err := replicaOf(t, ctx, c.hosts["c"], "ks").Read(ctx)
	if err != nil || string(v.Get("key").Value) != "value" {
		t.Fatalf("at c: %v", err)
	}
}

// servers are those that the catalog has.
func (c *cluster) servers(ctx context.Context) []string {
	c.t.Helper()
	r := replicaOf(c.t, ctx, c.hosts["a"], host.System)
	v, err := r.Read(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := v.Range(&machine.Get{Span: machine.Prefix("servers/"), KeysOnly: true})
	if err != nil {
		c.t.Fatal(err)
	}
	var names []string
	for _, e := range res.Entries {
		names = append(names, e.Key)
	}
	return names
}

func TestVotersByCommand(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	names := []string{"a", "b", "c"}
	for _, name := range names {
		c.start(name, names...)
	}
	c.create(ctx, "a", "ks", 1)
	e, _ := c.hosts["a"].Entry("ks")
	first := placement.NodeOf(members(e)[0])
	r := replicaOf(t, ctx, c.hosts[first], "ks")
	stop := make(chan struct{})
	written := make(chan int)
	go func() { // load, for as long as the members change
		n := 0
		for {
			select {
			case <-stop:
				written <- n
				return
			default:
				putKey(t, ctx, r, "load", "x")
				n++
			}
		}
	}()
	for _, name := range names {
		if name == first {
			continue
		}
		if _, err := c.hosts["b"].AddVoter(ctx, "ks", name); err != nil {
			t.Fatal(err)
		}
		if err := c.hosts["b"].AwaitVoter(ctx, "ks", name, true); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if n := <-written; n == 0 {
		t.Fatal("nothing was written meanwhile")
	}
	if _, err := c.hosts["a"].AddVoter(ctx, "ks", "nobody"); !errors.Is(err, host.ErrNotFound) {
		t.Fatalf("unknown server: %v", err)
	}
}

// TestQuorumLostForGood: the survivor's replica begins the group anew, gives no token again, and what
// comes back of the old group is refused and takes part as a new member at most.
func TestQuorumLostForGood(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	names := []string{"a", "b", "c"}
	// One replica in each zone: a majority of the keyspace's voters is outside the system group.
	c.zones = map[string]string{"a": "x", "b": "x", "c": "x", "d": "y", "e": "z"}
	for _, name := range append(names, "d", "e") {
		if name == "d" || name == "e" {
			c.start(name)
		} else {
			c.start(name, names...)
		}
	}
	for len(c.servers(ctx)) < 5 { // until all have registered
		pause(ctx, 20*time.Millisecond)
	}
	c.create(ctx, "a", "ks", 3)
	e, _ := c.hosts["a"].Entry("ks")
	voters := members(e)
	var outside []string
	for _, id := range voters {
		if n := placement.NodeOf(id); n == "d" || n == "e" {
			outside = append(outside, n)
		}
	}
	if len(outside) < 2 {
		t.Fatalf("placement chose %v, not one in each zone", voters)
	}
	var survivor string
	for _, id := range voters {
		if n := placement.NodeOf(id); !slices.Contains(outside, n) {
			survivor = n
		}
	}
	r := replicaOf(t, ctx, c.hosts[survivor], "ks")
	before := putKey(t, ctx, r, "key", "value")
	if _, err := c.hosts["a"].Recover(ctx, "ks", survivor); !errors.Is(err, host.ErrConflict) {
		t.Fatalf("recovery while all are alive: %v", err)
	}
	for _, name := range outside {
		c.stop(name)
	}
	got, err := c.hosts["b"].Recover(ctx, "ks", survivor)
	if err != nil {
		t.Fatal(err)
	}
	r, err = c.hosts[survivor].AwaitReplica(ctx, "ks")
	if err != nil {
		t.Fatal(err)
	}
	after := putKey(t, ctx, r, "key2", "value")
	if after.Revision <= before.Revision || got.Entry.Keyspace.Epoch == e.Keyspace.Epoch {
		t.Fatalf("revision %d after %d, epoch %d after %d", after.Revision, before.Revision, got.Entry.Keyspace.Epoch, e.Keyspace.Epoch)
	}
	v, err := r.Read(ctx)
	if err != nil || v.Get("key") == nil {
		t.Fatalf("the survivor lost what it had: %v", err)
	}
	for _, name := range outside {
		h := c.start(name)
		for { // it deletes what it had, whether or not it becomes a member again
			if run, ok := h.Replica("ks"); !ok || run.View().Get("key2") != nil {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("%s goes on with its old replica", name)
			}
			pause(ctx, 20*time.Millisecond)
		}
	}
}

// TestRecoveryCutShort: a server that was killed after the first step of a recovery finishes it before the
// catalog hears of it.
func TestRecoveryCutShort(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	names := []string{"a", "b", "c"}
	c.zones = map[string]string{"a": "x", "b": "x", "c": "x", "d": "y", "e": "z"}
	for _, name := range names {
		c.start(name, names...)
	}
	c.start("d")
	c.start("e")
	for len(c.servers(ctx)) < 5 {
		pause(ctx, 20*time.Millisecond)
	}
	e := c.create(ctx, "a", "ks", 3)
	i := slices.IndexFunc(e.Keyspace.Members, func(m placement.Replica) bool { return slices.Contains(names, m.Server) })
	self := e.Keyspace.Members[i]
	before := putKey(t, ctx, replicaOf(t, ctx, c.hosts[self.Server], "ks"), "key", "value")
	for { // what is recovered has the key, and the entry is the newest
		now, _ := c.hosts[self.Server].Entry("ks")
		if now.Keyspace.Started {
			e = now
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the keyspace was never recorded as started")
		}
		pause(ctx, 20*time.Millisecond)
	}
	c.stop("d")
	c.stop("e")
	c.stop(self.Server)
	next := placement.Recover(e.Keyspace, self)
	path := filepath.Join(c.dir, self.Server, "server.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	file["stores"].(map[string]any)["ks#1"] = next.Group()
	file["recoveries"] = map[string]any{"ks#1": map[string]any{"entry": e, "next": next}}
	if b, err = json.Marshal(file); err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.start(self.Server, names...)
	r := replicaOf(t, ctx, c.hosts[self.Server], "ks")
	after := putKey(t, ctx, r, "key2", "value")
	v, err := r.Read(ctx)
	if err != nil || v.Get("key") == nil || after.Revision <= before.Revision+1 {
		t.Fatalf("revision %d after %d, %v", after.Revision, before.Revision, err)
	}
}
