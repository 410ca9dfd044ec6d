package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
)

// A fakeAdmin records what operators ask for, which ends with err.
type fakeAdmin struct {
	client.StrongAdmin
	calls []string
	info  client.StrongInfo
	err   error
}

func (f *fakeAdmin) called(format string, args ...any) error {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeAdmin) CreateKeyspace(_ context.Context, spec client.KeyspaceSpec) error {
	return f.called("create %+v", spec)
}

func (f *fakeAdmin) StrongInfo(_ context.Context, name string) (client.StrongInfo, error) {
	return f.info, f.called("info %s", name)
}

func (f *fakeAdmin) AddVoter(_ context.Context, keyspace, server string) error {
	return f.called("add %s %s", keyspace, server)
}

func (f *fakeAdmin) RemoveVoter(_ context.Context, keyspace, server string) error {
	return f.called("rm %s %s", keyspace, server)
}

func (f *fakeAdmin) Decommission(_ context.Context, server string) error {
	return f.called("decommission %s", server)
}

func (f *fakeAdmin) RecoverKeyspace(_ context.Context, name, survivor string) (client.RecoveryReport, error) {
	return client.RecoveryReport{Epoch: 2, Survivor: survivor, Index: 90, Term: 4}, f.called("recover %s %s", name, survivor)
}

// fakeCluster lists keyspaces.
type fakeCluster struct {
	client.Cluster
	infos []client.KeyspaceInfo
	roles []string // of the only member
}

func (f *fakeCluster) Keyspaces(context.Context) ([]client.KeyspaceInfo, error) { return f.infos, nil }

func (f *fakeCluster) Members(context.Context) ([]client.Member, error) {
	return []client.Member{{Name: "host-1", Status: client.MemberAlive, Roles: f.roles}}, nil
}

func TestKeyspaceAdmin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, call, stdout string }{
		{"keyspace create k", fmt.Sprintf("create %+v", client.KeyspaceSpec{Name: "k", Mode: "eventual"}), "k: created, eventual\n"},
		{"keyspace create k --mode strong -o raw", fmt.Sprintf("create %+v", client.KeyspaceSpec{Name: "k", Mode: "strong"}), "k\n"},
		{"keyspace create k --mode strong --voters 5 --quota 512MiB -o json",
			fmt.Sprintf("create %+v", client.KeyspaceSpec{Name: "k", Mode: "strong", Voters: 5, Quota: 512 << 20}), `{"mode":"strong","name":"k"}` + "\n"},
		{"keyspace recover k --survivor host-2 --yes", "recover k host-2", "k: begun anew with the replica of host-2, up to its log entry 90 of term 4; epoch 2\n"},
		{"keyspace recover _system --survivor host-2 --yes -o json", "recover _system host-2", `{"epoch":2,"survivor":"host-2","index":90,"term":4}` + "\n"},
		{"voters k add host-4", "add k host-4", "k: host-4 is a voter\n"},
		{"voters k rm host-4 -o json", "rm k host-4", `{"name":"k","removed":"host-4"}` + "\n"},
		{"decommission host-4", "decommission host-4", "host-4 holds no replica of a strong keyspace any more\n"},
		{"decommission host-4 -o raw", "decommission host-4", "host-4\n"},
	} {
		f := &fakeAdmin{}
		if r := fakeRun(t, &fakeNode{StrongAdmin: f}, "", strings.Fields(c.args)...); r.code != 0 || r.stdout != c.stdout || !slices.Equal(f.calls, []string{c.call}) {
			t.Errorf("%s: %+v, called %q; want %q and %q", c.args, r, f.calls, c.stdout, c.call)
		}
	}
	for args, want := range map[string]string{
		"keyspace create":                              "KS is missing",
		"keyspace create K":                            `"K"`,
		"keyspace create _members --mode strong":       "",
		"keyspace create k --mode raft":                `"raft"`,
		"keyspace create k --voters 3":                 "--mode strong",
		"keyspace create k --quota 1GiB":               "--mode strong",
		"keyspace create k --mode strong --voters 0":   "1, 3 or 5",
		"keyspace create k --mode strong --quota lots": `"lots"`,
		"keyspace recover k":                           "--survivor is missing",
		"keyspace recover k --survivor host-2":         "--yes",
		"keyspace recover _members --survivor x":       "eventual",
		"voters":                                       "KS is missing",
		"voters k add":                                 "NODE is missing",
		"voters k promote host-1":                      `"promote"`,
		"voters k add a b":                             `"b" is one argument too many`,
		"decommission":                                 "NODE is missing",
	} {
		f := &fakeAdmin{err: client.ErrBadRequest}
		r := fakeRun(t, &fakeNode{StrongAdmin: f}, "", strings.Fields(args)...)
		if asked := want == ""; r.code != codeUsage || !strings.Contains(r.stderr, want) || (len(f.calls) > 0) != asked {
			t.Errorf("%s: got %+v, called %q; want usage with %q", args, r, f.calls, want)
		}
	}
	for _, args := range []string{"keyspace create k --mode strong", "keyspace recover k --survivor a --yes", "voters k", "voters k add a", "voters k rm a", "decommission a"} {
		for err, code := range map[error]int{client.ErrConflict: codeConflict, client.ErrNoQuorum: codeUnavailable, client.ErrNotFound: codeNotFound, client.ErrDenied: codeDenied} {
			if r := fakeRun(t, &fakeNode{StrongAdmin: &fakeAdmin{err: err}}, "", strings.Fields(args)...); r.code != code || r.stdout != "" {
				t.Errorf("%s with %v: got %+v, want code %d", args, err, r, code)
			}
		}
	}
}

// A change that takes longer than the time to wait for it goes on, and says so.
func TestUnfinishedChange(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"voters k add a", "decommission a"} {
		n := &fakeNode{StrongAdmin: &fakeAdmin{err: fmt.Errorf("add voter: %w", client.ErrTimeout)}}
		if r := fakeRun(t, n, "", strings.Fields(args)...); r.code != codeTimeout || !strings.Contains(r.stderr, "goes on") {
			t.Errorf("%s: got %+v", args, r)
		}
	}
}

func TestKeyspaceInfoOfEitherMode(t *testing.T) {
	t.Parallel()
	group := client.StrongInfo{
		Name: "k", Group: "k#1", Epoch: 1, Leader: "host-1", Term: 3, Applied: 40, Commit: 41, Revision: 12, Compacted: 2, Keys: 5, Bytes: 100, Quota: 1 << 31,
		Voters: []client.StrongVoter{{Server: "host-1", Role: "voter", Alive: true}, {Server: "host-2", Role: "learner", Alive: true}, {Server: "host-3", Role: "learner"}},
	}
	run := func(f *fakeAdmin, infos []client.KeyspaceInfo, args ...string) result {
		return fakeRun(t, &fakeNode{rest: rest{&fakeCluster{infos: infos, roles: []string{"server"}}}, StrongAdmin: f}, "", append([]string{"keyspace", "info"}, args...)...)
	}
	eventual, strong := []client.KeyspaceInfo{{Name: "k", Mode: "eventual", Digest: "dd"}}, []client.KeyspaceInfo{{Name: "k", Mode: "strong"}}

	f := &fakeAdmin{info: group}
	if r := run(f, eventual, "k", "-o", "raw"); r.stdout != "dd\n" || len(f.calls) > 0 {
		t.Errorf("eventual: %+v, called %q", r, f.calls)
	}
	for name, infos := range map[string][]client.KeyspaceInfo{"held": strong, "not held": nil} {
		r := run(f, infos, "k")
		for _, want := range []string{"strong", "k#1, epoch 1", "host-1, host-2 (a learner), host-3 (a learner, not alive)", "host-1, term 3", "applied 40, committed 41", "12, history from 2", "100 of 2147483648"} {
			if r.code != 0 || !strings.Contains(r.stdout, want) {
				t.Errorf("%s: got %+v, want %q", name, r, want)
			}
		}
	}
	var doc struct {
		Name, Group string
		Voters      []struct{ Server, Role string }
	}
	if err := json.Unmarshal([]byte(run(f, nil, "_system", "-o", "json").stdout), &doc); err != nil || doc.Group != "k#1" || len(doc.Voters) != 3 || doc.Voters[1].Role != "learner" {
		t.Errorf("json: %v, %+v", err, doc)
	}
	for _, err := range []error{client.ErrNotFound, client.ErrNeedsStrong} {
		if r := run(&fakeAdmin{err: err}, nil, "k"); r.code != codeNotFound {
			t.Errorf("%v: got %+v", err, r)
		}
	}
	n := &fakeNode{rest: rest{&fakeCluster{}}, StrongAdmin: &fakeAdmin{err: client.ErrUnavailable}}
	if r := fakeRun(t, n, "", "keyspace", "info", "k"); r.code != codeNotFound {
		t.Errorf("no servers: got %+v", r)
	}
	if r := run(&fakeAdmin{err: client.ErrUnavailable}, nil, "k"); r.code != codeUnavailable {
		t.Errorf("servers that do not answer: got %+v", r)
	}
	if r := run(&fakeAdmin{err: client.ErrNoQuorum}, strong, "k"); r.code != codeUnavailable {
		t.Errorf("no quorum: got %+v", r)
	}

	n = &fakeNode{StrongAdmin: f}
	if r := fakeRun(t, n, "", "voters", "k", "-o", "raw"); r.stdout != "host-1\nhost-2\nhost-3\n" {
		t.Errorf("voters: %+v", r)
	}
	if r := fakeRun(t, n, "", "voters", "k"); !strings.Contains(r.stdout, "leader") || !strings.Contains(r.stdout, "learner") {
		t.Errorf("voters: %+v", r)
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	for in, ok := range map[string]bool{"locks\n": true, " locks": true, "yes\n": false, "": false, "lock\n": false} {
		err := confirm(t.Context(), strings.NewReader(in), "locks")
		if (err == nil) != ok {
			t.Errorf("%q: got %v", in, err)
		}
		if !ok && exitCode(t.Context(), err) != codeError {
			t.Errorf("%q: got code %d", in, exitCode(t.Context(), err))
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errInterrupted)
	r, w := io.Pipe()
	defer w.Close() // ends the reader
	if err := confirm(ctx, r, "locks"); !errors.Is(err, errInterrupted) {
		t.Errorf("interrupted: got %v", err)
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]uint64{"": 0, "1": 1, "64KiB": 64 << 10, "512MiB": 512 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"0", "-1", "2GB", "GiB", "1.5GiB", "99999999999TiB", "2 GiB"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("%q: got %d", in, got)
		}
	}
}
