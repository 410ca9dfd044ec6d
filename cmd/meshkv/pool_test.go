package main

import (
	"context"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
)

func TestPool(t *testing.T) {
	t.Parallel()
	n, _ := aStrong(t)
	for _, c := range []struct {
		args string
		code int
		want string // stdout, or in stderr
	}{
		{"pool s/vni alloc", codeNotFound, "not found"},
		{"pool s/vni define 10 17", codeOK, "vni: 10 to 17\n"},
		{"pool s/vni alloc --label net -o raw", codeOK, "10\t1\n"},
		{"pool s/vni alloc --size 4 --align 4", codeOK, "12-15, token 2\n"},
		{"pool s/vni alloc --at 17 -o json", codeOK, `{"first":17,"size":1,"token":3}` + "\n"},
		{"pool s/vni alloc --at 17", codeConflict, "nothing suitable is free"},
		{"pool s/vni alloc --at 0", codeConflict, "nothing suitable is free"},
		{"pool s/vni ls -o raw", codeOK, "10\t1\t1\n12\t4\t2\n17\t1\t3\n"},
		{"pool s/vni free 10 --token 9", codeConflict, "not held"},
		{"pool s/vni free 10 --token 1", codeOK, "vni: 10 is free\n"},
		{"pool s/vni rm", codeConflict, "conflict"},
		{"pool s/vni define 10 12", codeConflict, "conflict"},
		{"pool s/vni free 12 --token 2 -o json", codeOK, `{"freed":12,"name":"vni"}` + "\n"},
		{"pool s/vni ls -o json", codeOK, `{"name":"vni","allocations":[{"first":17,"size":1,"token":3}]}` + "\n"},
		{"pool s/vni free 17 --token 3 -o raw", codeOK, "17\n"},
		{"pool s/vni ls -o json", codeOK, `{"name":"vni","allocations":[]}` + "\n"},
		{"pool s/vni rm -o json", codeOK, `{"name":"vni","removed":true}` + "\n"},
		{"pool", codeUsage, "KS/POOL is missing"},
		{"pool s ls", codeUsage, "names no key"},
		{"pool s/vni", codeUsage, "COMMAND is missing"},
		{"pool s/vni take", codeUsage, `"take"`},
		{"pool s/vni define 1", codeUsage, "LAST is missing"},
		{"pool s/vni define 1 x", codeUsage, `"x"`},
		{"pool s/vni define 5 1", codeUsage, "nothing in it"},
		{"pool s/vni free 1", codeUsage, "--token is missing"},
		{"pool s/vni ls --size 3", codeUsage, "--size is for alloc"},
		{"pool s/vni alloc --token 3", codeUsage, "--token is for free"},
	} {
		r := fakeRun(t, n, "", strings.Fields(c.args)...)
		if r.code != c.code || c.code == codeOK && r.stdout != c.want || !strings.Contains(r.stdout+r.stderr, c.want) {
			t.Errorf("%s: got %+v; want code %d and %q", c.args, r, c.code, c.want)
		}
	}
	fakeRun(t, n, "", "pool", "s/ids", "define", "1", "9")
	fakeRun(t, n, "", "pool", "s/ids", "alloc", "--size", "2", "--label", "a\tb")
	if r := fakeRun(t, n, "", "pool", "s/ids", "ls"); !strings.Contains(r.stdout, "1-2") || !strings.Contains(r.stdout, "a b") {
		t.Errorf("table: got %+v", r)
	}
}

// A scriptedWatch yields its events, and then that it was closed.
type scriptedWatch struct{ events []client.Event }

func (w *scriptedWatch) Close() error { return nil }

func (w *scriptedWatch) Next(context.Context) (client.Event, error) {
	if len(w.events) == 0 {
		return client.Event{}, client.ErrCompacted
	}
	ev := w.events[0]
	w.events = w.events[1:]
	return ev, nil
}

type watchedKeyspace struct {
	client.Keyspace
	watch *scriptedWatch
	asked client.WatchOptions
}

func (k *watchedKeyspace) Watch(_ context.Context, _ string, o *client.WatchOptions) (client.Watch, error) {
	k.asked = *o
	return k.watch, nil
}

func TestWatchOfStrongKeyspace(t *testing.T) {
	t.Parallel()
	events := []client.Event{
		{Type: client.EventPut, Entry: client.Entry{Key: "a", Value: []byte("1"), Version: client.Version{Seq: 7}}, Cursor: "6", More: true},
		{Type: client.EventDelete, Entry: client.Entry{Key: "b", Version: client.Version{Seq: 7}}, Reason: client.ReasonDeleted, Cursor: "7"},
		{Type: client.EventPut, Entry: client.Entry{Key: "c", Version: client.Version{Inc: 3, Seq: 7}, Origin: "host-1"}},
	}
	for form, want := range map[string]string{
		"table": "put     a  1  (revision 7)\ndelete  b  (deleted, revision 7)\nput     c    (by host-1)\n",
		"raw":   "put\ta\t1\ndelete\tb\nput\tc\t\n",
	} {
		ks := &watchedKeyspace{watch: &scriptedWatch{events: events}}
		r := fakeRun(t, &fakeNode{keyspace: ks}, "", "watch", "s", "--from", "6", "--exact", "-o", form)
		if r.stdout != want || ks.asked.From != "6" || !ks.asked.Exact || r.code != codeError || !strings.Contains(r.stderr, "compacted") {
			t.Errorf("%s: got %+v, asked %+v", form, r, ks.asked)
		}
	}
	ks := &watchedKeyspace{watch: &scriptedWatch{events: events}}
	if r := fakeRun(t, &fakeNode{keyspace: ks}, "", "watch", "s", "-o", "json"); !strings.Contains(r.stdout, `"cursor":"6"`) || !strings.Contains(r.stdout, `"cursor":"7"`) {
		t.Errorf("json: got %+v", r)
	}
	if r := fakeRun(t, &fakeNode{keyspace: ks}, "", "watch", "s", "--exact"); r.code != codeUsage || !strings.Contains(r.stderr, "--from") {
		t.Errorf("--exact alone: got %+v", r)
	}
}
