package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/internal/strongtest"
)

// A fakeKeyspace records the options of the last call, which ends with err.
type fakeKeyspace struct {
	client.Keyspace
	last string
	err  error
}

func (k *fakeKeyspace) Put(_ context.Context, key string, value []byte, o *client.PutOptions) (client.Version, error) {
	k.last = fmt.Sprintf("put %s %s %+v", key, value, *o)
	return client.Version{Seq: 8}, k.err
}

func (k *fakeKeyspace) Get(_ context.Context, key string, o *client.GetOptions) (client.Entry, error) {
	k.last = fmt.Sprintf("get %s %+v", key, *o)
	return client.Entry{Key: key, Value: []byte("v"), Version: client.Version{Seq: 8}}, k.err
}

func (k *fakeKeyspace) Delete(_ context.Context, key string, o *client.DeleteOptions) (client.Deletion, error) {
	k.last = fmt.Sprintf("del %s %+v", key, *o)
	return client.Deletion{Deleted: true, Version: client.Version{Seq: 9}}, k.err
}

func (k *fakeKeyspace) List(_ context.Context, prefix string, o *client.ListOptions) iter.Seq2[client.Entry, error] {
	k.last = fmt.Sprintf("ls %s %+v", prefix, *o)
	return func(func(client.Entry, error) bool) {}
}

func TestOptionsOfStrongKeyspaces(t *testing.T) {
	t.Parallel()
	seven := client.Version{Seq: 7}
	for _, c := range []struct {
		args  string
		stdin string
		want  string
	}{
		{args: "put s/k v --if-version 7", want: fmt.Sprintf("put k v %+v", client.PutOptions{IfVersion: seven})},
		{args: "put s/k v --if-absent", want: fmt.Sprintf("put k v %+v", client.PutOptions{IfAbsent: true})},
		{args: "put s/k v", want: fmt.Sprintf("put k v %+v", client.PutOptions{})},
		{args: "cas s/k v --if-version 7", want: fmt.Sprintf("put k v %+v", client.PutOptions{IfVersion: seven})},
		{args: "cas s/k - --if-version 7", stdin: "in", want: fmt.Sprintf("put k in %+v", client.PutOptions{IfVersion: seven})},
		{args: "get s/k", want: fmt.Sprintf("get k %+v", client.GetOptions{})},
		{args: "get s/k --consistency local", want: fmt.Sprintf("get k %+v", client.GetOptions{Local: true})},
		{args: "get s/k --consistency linearizable", want: fmt.Sprintf("get k %+v", client.GetOptions{Linearizable: true})},
		{args: "get s/k --revision 5", want: fmt.Sprintf("get k %+v", client.GetOptions{Revision: 5})},
		{args: "del s/k --if-version 7", want: fmt.Sprintf("del k %+v", client.DeleteOptions{IfVersion: seven})},
		{args: "ls s/p --local --revision 5", want: fmt.Sprintf("ls p %+v", client.ListOptions{Local: true, Revision: 5})},
	} {
		ks := &fakeKeyspace{}
		if r := fakeRun(t, &fakeNode{keyspace: ks}, c.stdin, strings.Fields(c.args)...); r.code != 0 || ks.last != c.want {
			t.Errorf("%s: %+v, called %q, want %q", c.args, r, ks.last, c.want)
		}
	}
	for args, want := range map[string]string{
		"put s/k v --if-version x":                `"x"`,
		"put s/k v --if-version 7 --if-absent":    "exclude",
		"cas s/k v":                               "--if-version is missing",
		"cas s/k v --if-version -1":               `"-1"`,
		"get s/k --consistency most":              `"most"`,
		"get s/k --revision -1":                   "revision",
		"history s/k --limit -1":                  "positive",
		"history s":                               "names no key",
		"del s/k --if-version 12-":                `"12-"`,
		"cas s/k v w --if-version 7":              `"w" is one argument too many`,
		"put s/k v --if-absent --timeout forever": "timeout",
	} {
		ks := &fakeKeyspace{}
		if r := fakeRun(t, &fakeNode{keyspace: ks}, "", strings.Fields(args)...); r.code != codeUsage || !strings.Contains(r.stderr, want) || ks.last != "" {
			t.Errorf("%s: got %+v, called %q; want usage with %q", args, r, ks.last, want)
		}
	}
}

func TestConflictsOfStrongKeyspaces(t *testing.T) {
	t.Parallel()
	for err, code := range map[error]int{
		client.ErrConflict: codeConflict, client.ErrNoQuorum: codeUnavailable, client.ErrUnknownOutcome: codeError, client.ErrNeedsStrong: codeError,
	} {
		for _, args := range []string{"cas s/k v --if-version 7", "put s/k v --if-absent", "del s/k --if-version 7"} {
			n := &fakeNode{keyspace: &fakeKeyspace{err: err}}
			if r := fakeRun(t, n, "", strings.Fields(args)...); r.code != code || r.stdout != "" {
				t.Errorf("%s with %v: got %+v, want code %d", args, err, r, code)
			}
		}
	}
}

// aStrong is a strong keyspace in memory.
func aStrong(t *testing.T) (*fakeNode, client.Strong) {
	t.Helper()
	s := client.NewStrong(strongtest.New("s"), namedKeyspace{name: "s"})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &fakeNode{strong: s}, s
}

type namedKeyspace struct {
	client.Keyspace
	name string
}

func (k namedKeyspace) Name() string { return k.name }

func put(t *testing.T, s client.Strong, key, value string) (revision uint64) {
	t.Helper()
	r, err := s.Txn(t.Context(), &client.Txn{Then: []client.TxnOp{{Put: &client.TxnPut{Key: key, Value: []byte(value)}}}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Revision
}

func TestHistory(t *testing.T) {
	t.Parallel()
	n, s := aStrong(t)
	put(t, s, "k", "of a former life")
	before := put(t, s, "other", "x")
	if _, err := s.Txn(t.Context(), &client.Txn{Then: []client.TxnOp{{Delete: &client.TxnDelete{Key: "k"}}}}); err != nil {
		t.Fatal(err)
	}
	one := put(t, s, "k", "one")
	put(t, s, "other", "y")
	two := put(t, s, "k", "two")
	three := put(t, s, "k", "three\n")

	raw := fmt.Sprintf("%d\tthree\\n\n%d\ttwo\n%d\tone\n", three, two, one)
	if r := fakeRun(t, n, "", "history", "s/k", "-o", "raw"); r.code != 0 || r.stdout != raw || r.stderr != "" {
		t.Errorf("got %+v, want %q", r, raw)
	}
	if r := fakeRun(t, n, "", "history", "s/k", "-o", "raw", "--limit", "2"); r.stdout != fmt.Sprintf("%d\tthree\\n\n%d\ttwo\n", three, two) {
		t.Errorf("two: got %+v", r)
	}
	if r := fakeRun(t, n, "", "history", "s/k", "-o", "raw", "--revision", strconv.FormatUint(before, 10)); r.stdout != "2\tof a former life\n" {
		t.Errorf("before the deletion: got %+v", r)
	}
	if r := fakeRun(t, n, "", "history", "s/none"); r.code != codeNotFound || r.stdout != "" || !strings.Contains(r.stderr, "--revision") {
		t.Errorf("no such key: got %+v", r)
	}
	if r := fakeRun(t, n, "", "history", "s/k", "--revision", "1000"); r.code != codeUsage {
		t.Errorf("of the future: got %+v", r)
	}
	if r := fakeRun(t, n, "", "history", "s/k"); !strings.HasPrefix(r.stdout, "VERSION") || !strings.Contains(r.stdout, "three") {
		t.Errorf("table: got %+v", r)
	}
	lines := strings.Split(fakeRun(t, n, "", "history", "s/k", "-o", "json").stdout, "\n")
	var entry struct {
		Key, Version string
		Value        []byte
		Create, Puts uint64
	}
	if err := json.Unmarshal([]byte(lines[0]), &entry); err != nil || entry.Key != "k" || string(entry.Value) != "three\n" || entry.Create != one || entry.Puts != 3 || len(lines) != 4 {
		t.Errorf("json: %v, %+v, %q", err, entry, lines)
	}
}

// What was compacted ends the history, and is said.
func TestHistoryCompacted(t *testing.T) {
	t.Parallel()
	k := strongtest.New("s")
	s := client.NewStrong(k, namedKeyspace{name: "s"})
	defer s.Close(context.Background())
	put(t, s, "k", "one")
	two := put(t, s, "k", "two")
	three := put(t, s, "k", "three")
	if _, err := k.StrongCall(t.Context(), "s", &client.StrongCall{Kind: client.CallCompact, Revision: two}); err != nil {
		t.Fatal(err)
	}
	r := fakeRun(t, &fakeNode{strong: s}, "", "history", "s/k", "-o", "raw")
	if r.code != 0 || r.stdout != fmt.Sprintf("%d\tthree\n%d\ttwo\n", three, two) || r.stderr != fmt.Sprintf("meshkv: versions before %d are kept no longer\n", two) {
		t.Errorf("got %+v", r)
	}
}
