package node_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

// strongStatus is what a node tells of a strong keyspace, and of what it has of it.
func strongStatus(t *testing.T, n *node.Node, keyspace string) client.StrongStatus {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range st.Strong {
		if s.Name == keyspace {
			return s
		}
	}
	return client.StrongStatus{}
}

// localEntries is what a node lists of a strong keyspace without asking others.
func localEntries(t *testing.T, n *node.Node, keyspace string) map[string]string {
	t.Helper()
	ks, err := n.Keyspace(t.Context(), keyspace)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for e, err := range ks.List(t.Context(), "", &client.ListOptions{Local: true}) {
		if err != nil {
			return nil
		}
		all[e.Key] = fmt.Sprintf("%s %v", e.Value, e.Version)
	}
	return all
}

// A node without a replica has a copy, which it serves when all servers are gone, and
// which its watches follow. The servers have none while all who join are members.
func TestMirrorOnANodeWithoutReplica(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	servers, agent := strongCluster(t, ctx, "conf")
	ks, err := agent.Strong(ctx, "conf")
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for i := range 40 {
		key := fmt.Sprint("key", i%30)
		if i%3 == 2 {
			if _, err := ks.Delete(ctx, key, nil); err != nil {
				t.Fatal(err)
			}
			delete(want, key)
			continue
		}
		v, err := ks.Put(ctx, key, []byte(fmt.Sprint(i)), nil)
		if err != nil {
			t.Fatal(err)
		}
		want[key] = fmt.Sprintf("%d %v", i, v)
	}
	mirror := func() client.Keyspace {
		t.Helper()
		var m client.Keyspace
		until(t, "the mirror is open", func() bool {
			var err error
			m, err = agent.Lookup("conf~strong")
			return err == nil
		})
		return m
	}()
	w, err := mirror.Watch(ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	if _, err := ks.Put(ctx, "last", []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	if err := nextOf(t, w, func(ev client.Event) bool { return ev.Type == client.EventPut && ev.Entry.Key == "last" }); err != nil {
		t.Fatal(err)
	}
	if _, err := ks.Delete(ctx, "last", nil); err != nil {
		t.Fatal(err)
	}
	until(t, "the mirror holds what the servers do", func() bool { return maps.Equal(localEntries(t, agent, "conf"), want) })
	var revision uint64
	until(t, "a copy knows how old it is", func() bool {
		revision = strongStatus(t, servers[0], "conf").Revision // which may learn of the last one later than the agent
		s := strongStatus(t, agent, "conf")
		return s.Role == "copy" && s.Revision == revision && s.Behind == 0 && s.Age >= 0 && s.Age < 30*time.Second
	})
	roles := make(map[string]int)
	for _, s := range servers {
		st := strongStatus(t, s, "conf")
		roles[st.Role]++
		if st.Leader == "" || st.Age < 0 || st.Revision > revision {
			t.Errorf("%s has %+v", s.Name(), st)
		}
	}
	if roles["leader"] != 1 || roles["follower"] != 2 {
		t.Errorf("roles %v", roles)
	}
	if _, err := mirror.Put(ctx, "k", nil, nil); !errors.Is(err, client.ErrDenied) {
		t.Errorf("put to the mirror: %v", err)
	}
	infos, err := agent.Keyspaces(ctx)
	if err != nil || len(infos) != 1 || infos[0].Name != "conf" {
		t.Errorf("keyspaces: %+v, %v", infos, err)
	}
	cfg := node.Config{Name: "kept", DataDir: t.TempDir(), Join: []string{agent.MeshAddr()}}
	kept := start(t, cfg)
	until(t, "another one has a copy", func() bool { // also by those whose servers answer
		_, err := kept.Lookup("conf~strong")
		return err == nil && maps.Equal(localEntries(t, kept, "conf"), want)
	})
	for _, s := range servers {
		stop(t, s)
	}
	until(t, "no server answers, and the mirror does", func() bool {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err := ks.Get(short, "key0", nil)
		return err != nil && maps.Equal(localEntries(t, agent, "conf"), want)
	})
	until(t, "the copy grows old", func() bool { return strongStatus(t, agent, "conf").Age > 2*time.Second })
	until(t, "the other one serves its copy", func() bool { return maps.Equal(localEntries(t, kept, "conf"), want) })
	stop(t, agent)
	stop(t, kept)
	kept = start(t, cfg) // with nobody to fill it
	until(t, "a copy is on disk", func() bool { return maps.Equal(localEntries(t, kept, "conf"), want) })
}

// Servers hold no mirror beside their replicas for themselves.
func TestMirrorGoesWithItsReaders(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	servers, agent := strongCluster(t, ctx, "conf")
	held := func(n *node.Node) bool {
		_, err := n.Lookup("conf~strong")
		return err == nil
	}
	until(t, "servers feed mirrors", func() bool { return held(servers[0]) && held(servers[1]) && held(servers[2]) })
	if err := agent.LeaveKeyspace(ctx, "conf", false); err != nil {
		t.Fatal(err)
	}
	until(t, "a copy that was left is gone, and is fed no more", func() bool {
		return !held(agent) && !held(servers[0]) && !held(servers[1]) && !held(servers[2])
	})
	if err := agent.JoinKeyspace(ctx, "conf"); err != nil {
		t.Fatal(err)
	}
	until(t, "it is back when it is joined", func() bool { return held(agent) && held(servers[0]) && held(servers[1]) && held(servers[2]) })
	if st, err := agent.Status(ctx); err != nil || len(st.Warnings) > 0 {
		t.Errorf("warnings %q, %v", st.Warnings, err)
	}
	if err := agent.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	until(t, "servers give their mirrors up", func() bool { return !held(servers[0]) && !held(servers[1]) && !held(servers[2]) })
}
