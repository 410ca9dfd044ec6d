package clienttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

func testPutGet(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	_, err := k.Get(ctx, "a", nil)
	wantError(t, "Get of an absent key", err, client.ErrNotFound)
	v1 := put(t, ctx, k, "a", "1", nil)
	v2 := put(t, ctx, k, "a", "2", nil)
	if v1 == v2 {
		t.Errorf("two puts have one version %v", v1)
	}
	e, err := k.Get(ctx, "a", nil)
	if err != nil || string(e.Value) != "2" || e.Version != v2 || e.Key != "a" || e.Origin == "" {
		t.Errorf("Get: got %+v, %v; want value 2 of version %v", e, err, v2)
	}
	if age := time.Since(e.Modified); age < -time.Minute || age > time.Minute {
		t.Errorf("Modified: got %v", e.Modified)
	}
	if !e.Expires.IsZero() || e.Ephemeral || len(e.Siblings) != 0 {
		t.Errorf("Get: got %+v, want neither expiry, owner nor siblings", e)
	}
	if parsed, err := client.ParseVersion(v2.String()); err != nil || parsed != v2 {
		t.Errorf("version %v does not survive its string: %v, %v", v2, parsed, err)
	}
	if k.Name() != "k" {
		t.Errorf("Name: got %q", k.Name())
	}
}

func testOpaque(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	all := []string{"/", "//", "a/../b", "\x00", "\xff\xfe", "%2f", "ä", " ", "a?b#c", strings.Repeat("x", 1024)}
	values := []string{"", "\x00\x01\xff", strings.Repeat("v", 64<<10)}
	for i, key := range all {
		put(t, ctx, k, key, values[i%len(values)], nil)
	}
	for i, key := range all {
		wantValue(t, ctx, k, key, values[i%len(values)])
	}
	if got, want := keys(t, ctx, k, "", nil), slices.Sorted(slices.Values(all)); !slices.Equal(got, want) {
		t.Errorf("List: got %q, want %q", got, want)
	}
}

func testValueCopied(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	value := []byte("before")
	if _, err := k.Put(ctx, "a", value, nil); err != nil {
		t.Fatal(err)
	}
	copy(value, "after!")
	wantValue(t, ctx, k, "a", "before")
}

func testDelete(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	if d := remove(t, ctx, k, "a"); d.Deleted || !d.Version.IsZero() {
		t.Errorf("Delete of an absent key: got %+v", d)
	}
	v := put(t, ctx, k, "a", "1", nil)
	if d := remove(t, ctx, k, "a"); !d.Deleted || d.Version.IsZero() || d.Version == v {
		t.Errorf("Delete: got %+v after version %v", d, v)
	}
	_, err := k.Get(ctx, "a", nil)
	wantError(t, "Get of a deleted key", err, client.ErrNotFound)
	put(t, ctx, k, "a", "2", nil)
	wantValue(t, ctx, k, "a", "2")
}

func testBadRequests(t *testing.T, ctx context.Context, c client.Cluster) {
	for _, name := range []string{"", "A", "_system", "a/b", "-a", "a b", strings.Repeat("a", 64)} {
		_, err := c.Keyspace(ctx, name)
		wantError(t, fmt.Sprintf("Keyspace(%q)", name), err, client.ErrBadRequest)
	}
	if _, err := c.Keyspace(ctx, "0"+strings.Repeat("a.-_9", 12)+"bc"); err != nil {
		t.Errorf("a name of 63 bytes: %v", err)
	}
	k := keyspace(t, ctx, c, "k")
	for _, key := range []string{"", strings.Repeat("x", 1025)} {
		_, err := k.Put(ctx, key, nil, nil)
		wantError(t, fmt.Sprintf("Put of a key of %d bytes", len(key)), err, client.ErrBadRequest, client.ErrTooLarge)
		_, err = k.Get(ctx, key, nil)
		wantError(t, fmt.Sprintf("Get of a key of %d bytes", len(key)), err, client.ErrBadRequest, client.ErrTooLarge)
		_, err = k.Delete(ctx, key, nil)
		wantError(t, fmt.Sprintf("Delete of a key of %d bytes", len(key)), err, client.ErrBadRequest, client.ErrTooLarge)
	}
	for _, size := range []int{1<<20 + 1, 3 << 20} {
		_, err := k.Put(ctx, "a", make([]byte, size), nil)
		wantError(t, fmt.Sprintf("Put of %d bytes", size), err, client.ErrTooLarge)
	}
	_, err := k.Put(ctx, "a", nil, &client.PutOptions{TTL: -time.Second})
	wantError(t, "negative TTL", err, client.ErrBadRequest)
	_, err = k.Get(ctx, "a", &client.GetOptions{After: "nonsense"})
	wantError(t, "bad token", err, client.ErrBadRequest)
	_, err = k.Watch(ctx, "", &client.WatchOptions{From: "nonsense"})
	wantError(t, "bad cursor", err, client.ErrBadRequest)
	for _, err := range k.List(ctx, "", &client.ListOptions{Limit: -1}) {
		wantError(t, "negative limit", err, client.ErrBadRequest)
	}
	if got := keys(t, ctx, k, "", nil); len(got) != 0 {
		t.Errorf("refused puts left %q", got)
	}
}

func testStrongOptions(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	_, err := k.Put(ctx, "a", nil, &client.PutOptions{IfAbsent: true})
	wantError(t, "IfAbsent", err, client.ErrNeedsStrong)
	_, err = k.Put(ctx, "a", nil, &client.PutOptions{IfVersion: client.Version{Inc: 1, Seq: 1}})
	wantError(t, "IfVersion", err, client.ErrNeedsStrong)
	_, err = k.Get(ctx, "a", &client.GetOptions{Linearizable: true})
	wantError(t, "Linearizable", err, client.ErrNeedsStrong)
}

func testTTL(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	put(t, ctx, k, "long", "1", &client.PutOptions{TTL: time.Hour})
	e, err := k.Get(ctx, "long", nil)
	if left := time.Until(e.Expires); err != nil || left < 59*time.Minute || left > time.Hour {
		t.Errorf("Expires: got %v from now, %v", left, err)
	}
	put(t, ctx, k, "short", "1", &client.PutOptions{TTL: 50 * time.Millisecond})
	waitGone(t, ctx, k, "short")
	if got := keys(t, ctx, k, "", nil); !slices.Equal(got, []string{"long"}) {
		t.Errorf("List after expiry: got %q", got)
	}
	put(t, ctx, k, "renewed", "1", &client.PutOptions{TTL: 50 * time.Millisecond})
	put(t, ctx, k, "renewed", "2", nil)
	put(t, ctx, k, "marker", "1", &client.PutOptions{TTL: 60 * time.Millisecond})
	waitGone(t, ctx, k, "marker")
	wantValue(t, ctx, k, "renewed", "2")
}

// waitGone reads until key is gone: that a read hides it does not depend on
// anything that could be waited for.
func waitGone(t *testing.T, ctx context.Context, k client.Keyspace, key string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		_, err := k.Get(ctx, key, nil)
		if errors.Is(err, client.ErrNotFound) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%q is not gone: %v", key, err)
		}
	}
}

func testEphemeral(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	put(t, ctx, k, "a", "1", &client.PutOptions{Ephemeral: true})
	e, err := k.Get(ctx, "a", nil)
	if err != nil || !e.Ephemeral {
		t.Errorf("Get: got %+v, %v; want an ephemeral entry", e, err)
	}
}

func testToken(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	v := put(t, ctx, k, "a", "1", nil)
	e, err := k.Get(ctx, "a", &client.GetOptions{After: v.Token()})
	if err != nil || e.Version != v {
		t.Errorf("Get after one's own write: got %+v, %v", e, err)
	}
	ahead := v
	ahead.Seq += 1000
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = k.Get(short, "a", &client.GetOptions{After: ahead.Token()})
	wantError(t, "Get after a write that was not seen", err, client.ErrNotCaughtUp)
}

func testList(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	for _, key := range []string{"net1/b", "net10/a", "net1/a", "net1", "net2", "\xff", "a"} {
		put(t, ctx, k, key, "v-"+key, nil)
	}
	remove(t, ctx, k, "net2")
	tests := []struct {
		name, prefix string
		o            *client.ListOptions
		want         []string
	}{
		{"all", "", nil, []string{"a", "net1", "net1/a", "net1/b", "net10/a", "\xff"}},
		{"prefix", "net1", nil, []string{"net1", "net1/a", "net1/b", "net10/a"}},
		{"prefix with separator", "net1/", nil, []string{"net1/a", "net1/b"}},
		{"limit", "", &client.ListOptions{Limit: 2}, []string{"a", "net1"}},
		{"limit beyond", "", &client.ListOptions{Limit: 100}, []string{"a", "net1", "net1/a", "net1/b", "net10/a", "\xff"}},
		{"after a key", "", &client.ListOptions{After: "net1/a"}, []string{"net1/b", "net10/a", "\xff"}},
		{"after an absent key", "", &client.ListOptions{After: "net1/aa", Limit: 1}, []string{"net1/b"}},
		{"after, before the prefix", "net1/", &client.ListOptions{After: "a"}, []string{"net1/a", "net1/b"}},
		{"after, beyond the prefix", "net1/", &client.ListOptions{After: "net2"}, nil},
		{"none", "zzz", nil, nil},
	}
	for _, tt := range tests {
		if got := keys(t, ctx, k, tt.prefix, tt.o); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	for e, err := range k.List(ctx, "net1/", nil) {
		if err != nil || string(e.Value) != "v-"+e.Key || e.Version.IsZero() {
			t.Errorf("List: got %+v, %v", e, err)
		}
	}
	for e, err := range k.List(ctx, "net1/", &client.ListOptions{KeysOnly: true}) {
		if err != nil || e.Value != nil || e.Version.IsZero() {
			t.Errorf("List of keys only: got %+v, %v", e, err)
		}
	}
}

func testListMany(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	const n = 2500
	value := strings.Repeat("v", 300) // several pages of a remote list
	var want []string
	for i := range n {
		key := fmt.Sprintf("%06d", i)
		want = append(want, key)
		put(t, ctx, k, key, value, nil)
	}
	if got := keys(t, ctx, k, "", nil); !slices.Equal(got, want) {
		t.Errorf("List: got %d keys, want %d in order", len(got), n)
	}
	if got := keys(t, ctx, k, "", &client.ListOptions{Limit: 2000, After: want[99]}); !slices.Equal(got, want[100:2100]) {
		t.Errorf("List with a limit: got %d keys, want 2000 in order", len(got))
	}
}

func testListStops(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	for i := range 10 {
		put(t, ctx, k, fmt.Sprint(i), "v", nil)
	}
	n := 0
	for range k.List(ctx, "", nil) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("got %d entries before the break", n)
	}
	put(t, ctx, k, "0", "w", nil) // nothing is held
}

func testKeyspacesApart(t *testing.T, ctx context.Context, c client.Cluster) {
	a, b := keyspace(t, ctx, c, "a"), keyspace(t, ctx, c, "b")
	put(t, ctx, a, "x", "in a", nil)
	_, err := b.Get(ctx, "x", nil)
	wantError(t, "Get in another keyspace", err, client.ErrNotFound)
	put(t, ctx, b, "x", "in b", nil)
	wantValue(t, ctx, a, "x", "in a")
}

func testInfo(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	put(t, ctx, k, "a", "1", nil)
	before, err := k.Digest(ctx)
	if err != nil || before.Keyspace != "k" || before.Digest == "" || before.Clock == "" || before.Entries != 1 {
		t.Errorf("Digest: got %+v, %v", before, err)
	}
	put(t, ctx, k, "b", "1", nil)
	after, err := k.Digest(ctx)
	if err != nil || after.Digest == before.Digest || after.Entries != 2 {
		t.Errorf("Digest after a put: got %+v, %v; before it %+v", after, err, before)
	}
	info, err := k.Info(ctx)
	if err != nil || info.Name != "k" || info.Mode != "eventual" || info.Keys != 2 || info.Cells < 2 || info.Digest == "" {
		t.Errorf("Info: got %+v, %v", info, err)
	}
}

func testCluster(t *testing.T, ctx context.Context, c client.Cluster) {
	put(t, ctx, keyspace(t, ctx, c, "b"), "x", "1", nil)
	put(t, ctx, keyspace(t, ctx, c, "a"), "x", "1", nil)
	list, err := c.Keyspaces(ctx)
	var names []string
	for _, k := range list {
		names = append(names, k.Name)
	}
	if err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("Keyspaces: got %q, %v", names, err)
	}
	members, err := c.Members(ctx)
	if err != nil || len(members) != 1 || members[0].Name == "" || members[0].Status != client.MemberAlive {
		t.Errorf("Members: got %+v, %v", members, err)
	}
	status, err := c.Status(ctx)
	if err != nil || len(members) != 1 || status.Name != members[0].Name || status.Inc == "" {
		t.Errorf("Status: got %+v, %v", status, err)
	}
}

func testEndedContext(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	put(t, ctx, k, "a", "1", nil)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range k.List(ended, "", nil) {
		wantError(t, "List", err, context.Canceled)
	}
	w := watch(t, ctx, k, "zzz", &client.WatchOptions{UpdatesOnly: true})
	wantEvent(t, ctx, w, client.EventSynced, "", "")
	_, err := w.Next(ended)
	wantError(t, "Next", err, context.Canceled)
}

func testConcurrent(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	const workers, rounds = 16, 50
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			key := fmt.Sprintf("w%d", i)
			for j := range rounds {
				want := fmt.Sprint(j)
				if _, err := k.Put(ctx, key, []byte(want), nil); err != nil {
					t.Errorf("Put: %v", err)
					return
				}
				if e, err := k.Get(ctx, key, nil); err != nil || string(e.Value) != want {
					t.Errorf("Get of one's own write: got %q, %v; want %q", e.Value, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := keys(t, ctx, k, "w", nil); len(got) != workers {
		t.Errorf("List: got %d keys, want %d", len(got), workers)
	}
}
