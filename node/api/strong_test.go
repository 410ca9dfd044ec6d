package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/clienttest"
	"github.com/meshkv/meshkv/client/wire"
	"github.com/meshkv/meshkv/internal/strongtest"
	"github.com/meshkv/meshkv/node/api/internal/memory"
)

// A strongCluster has a strong keyspace s beside the eventual ones.
type strongCluster struct {
	*memory.Cluster
	s *strongtest.Keyspace

	mu    sync.Mutex // protects the fields below
	admin []string   // what was asked for
	fail  error      // of administrative calls
}

func newStrongCluster() *strongCluster {
	return &strongCluster{Cluster: memory.New(5), s: strongtest.New("s")}
}

func (c *strongCluster) Keyspace(ctx context.Context, name string) (client.Keyspace, error) {
	if c.IsStrong(name) {
		return c.s, nil
	}
	return c.Cluster.Keyspace(ctx, name)
}

func (c *strongCluster) Lookup(name string) (client.Keyspace, error) {
	if c.IsStrong(name) {
		return c.s, nil
	}
	return c.Cluster.Lookup(name)
}

func (c *strongCluster) IsStrong(name string) bool { return name == "s" }

func (c *strongCluster) StrongCall(ctx context.Context, name string, call *client.StrongCall) (client.StrongReply, error) {
	if !c.IsStrong(name) {
		return client.StrongReply{}, fmt.Errorf("%w: %s is eventual", client.ErrNeedsStrong, name)
	}
	return c.s.StrongCall(ctx, name, call)
}

func (c *strongCluster) note(format string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.admin = append(c.admin, fmt.Sprintf(format, args...))
	return c.fail
}

func (c *strongCluster) noted() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.admin = nil }()
	return strings.Join(c.admin, "; ")
}

func (c *strongCluster) CreateKeyspace(_ context.Context, spec client.KeyspaceSpec) error {
	return c.note("create %s %s %d %d", spec.Name, spec.Mode, spec.Voters, spec.Quota)
}
func (c *strongCluster) RemoveKeyspace(_ context.Context, name string) error {
	return c.note("remove %s", name)
}
func (c *strongCluster) JoinKeyspace(_ context.Context, name string) error {
	return c.note("join %s", name)
}
func (c *strongCluster) LeaveKeyspace(_ context.Context, name string, _ bool) error {
	return c.note("leave %s", name)
}
func (c *strongCluster) AllowDrops(context.Context, string, time.Duration) error { return nil }
func (c *strongCluster) StrongInfo(_ context.Context, name string) (client.StrongInfo, error) {
	return client.StrongInfo{Name: name, Group: "s#1", Leader: "n1", Term: 3, Voters: []client.StrongVoter{{Server: "n1", Replica: "n1/ab", Role: "voter", Alive: true}}},
		c.note("info %s", name)
}
func (c *strongCluster) AddVoter(_ context.Context, keyspace, server string) error {
	return c.note("add %s %s", keyspace, server)
}
func (c *strongCluster) RemoveVoter(_ context.Context, keyspace, server string) error {
	return c.note("rm %s %s", keyspace, server)
}
func (c *strongCluster) Decommission(_ context.Context, server string) error {
	return c.note("decommission %s", server)
}
func (c *strongCluster) RecoverKeyspace(_ context.Context, name, survivor string) (client.RecoveryReport, error) {
	return client.RecoveryReport{Epoch: 2, Survivor: survivor, Index: 7, Term: 3}, c.note("recover %s %s", name, survivor)
}

var _ StrongBackend = (*strongCluster)(nil)

// A step is one request of a script, and what its answer contains.
type step struct {
	method, target, body string
	status               int
	want                 string
}

func run(t *testing.T, addr string, steps []step) {
	t.Helper()
	for i, s := range steps {
		resp, body := exchange(t, addr, s.method, s.target, s.body)
		if resp.StatusCode != s.status || !strings.Contains(body, s.want) {
			t.Fatalf("step %d, %s %s %s: got %d %s, want %d %s", i+1, s.method, s.target, s.body, resp.StatusCode, body, s.status, s.want)
		}
		if s.status >= 400 {
			var e errorJSON
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error.Code == "" || e.Error.Message == "" {
				t.Errorf("step %d: error body %q: %v", i+1, body, err)
			}
		}
	}
}

func TestStrongOverHTTP(t *testing.T) {
	long := strings.Repeat("x", 1025)
	for name, steps := range map[string][]step{
		"sessions": {
			{"POST", "/v1/session/s", `{"ttl":"20s"}`, 200, `{"id":"1","ttl":"20s"}`},
			{"PUT", "/v1/session/s/1", "", 200, `{"id":"1","ttl":"20s"}`},
			{"DELETE", "/v1/session/s/1", "", 200, `{"ended":true,"id":"1"}`},
			{"PUT", "/v1/session/s/1", "", 409, `"code":"session_lost"`},
			{"DELETE", "/v1/session/s/1", "", 409, `"code":"session_lost"`},
			{"POST", "/v1/session/s", "", 200, `"ttl":"15s"`},
			{"POST", "/v1/session/s?request-id=one", "", 200, `"id":"5"`},
			{"POST", "/v1/session/s?request-id=one", "", 200, `"id":"5"`},
			{"POST", "/v1/session/s", `{"ttl":"1ms"}`, 400, `from 1s to 24h`},
			{"POST", "/v1/session/s", `{"ttl":15}`, 400, `written as in`},
			{"POST", "/v1/session/s", `{"tll":"15s"}`, 400, `unknown field`},
			{"POST", "/v1/session/s", `{} {}`, 400, `more than one`},
			{"POST", "/v1/session/k", "", 412, `"code":"needs_strong"`},
			{"PUT", "/v1/session/s/x", "", 400, `/v1/session/KEYSPACE/ID`},
			{"PUT", "/v1/session/s", "", 405, `allowed here: POST`},
			{"GET", "/v1/session/s/1", "", 405, `allowed here: PUT, DELETE`},
			{"POST", "/v1/session/", "", 400, `names no keyspace`},
		},
		"locks": {
			{"POST", "/v1/session/s", "", 200, `"id":"1"`},
			{"POST", "/v1/session/s", "", 200, `"id":"2"`},
			{"POST", "/v1/lock/s/a/b", `{"session":"1","value":"me"}`, 200, `{"token":1,"session":"1","version":"1"}`},
			{"POST", "/v1/lock/s/a/b", `{"session":1}`, 200, `{"token":1,"session":"1"`},
			{"POST", "/v1/lock/s/a%2Fb", `{"session":"2"}`, 409, `"code":"conflict"`},
			{"POST", "/v1/lock/s/a/b", `{"session":"2","wait":"20ms"}`, 409, `not obtained in time`},
			{"GET", "/v1/lock/s/a/b", "", 200, `{"name":"a/b","holders":[{"session":"1","token":1,"mode":"exclusive","value":"me"}],"waiting":[]`},
			{"DELETE", "/v1/lock/s/a/b?session=2", "", 409, `"code":"not_held"`},
			{"DELETE", "/v1/lock/s/a/b?session=1", "", 200, `"released":true`},
			{"DELETE", "/v1/lock/s/a/b?session=1", "", 409, `"code":"not_held"`},
			{"POST", "/v1/lock/s/a/b", `{"session":"2","wait":"1s"}`, 200, `{"token":2,"session":"2"`},
			{"DELETE", "/v1/lock/s/a/b?token=1", "", 409, `"code":"not_held"`},
			{"DELETE", "/v1/lock/s/a/b?token=2&request-id=r", "", 200, `"released":true`},
			{"DELETE", "/v1/lock/s/a/b?token=2&request-id=r", "", 200, `"released":true`},
			{"DELETE", "/v1/lock/s/a/b", "", 400, `whose lock`},
			{"POST", "/v1/lock/s/sem", `{"session":"1","mode":"place","places":2}`, 200, `"token":3`},
			{"POST", "/v1/lock/s/sem", `{"session":"1","mode":"place","places":2,"claim":1}`, 200, `"token":4`},
			{"POST", "/v1/lock/s/sem", `{"session":"2","mode":"place","places":2}`, 409, `conflict`},
			{"POST", "/v1/lock/s/rw", `{"session":"1","mode":"shared"}`, 200, `"token":5`},
			{"POST", "/v1/lock/s/rw", `{"session":"2","mode":"shared"}`, 200, `"token":6`},
			{"POST", "/v1/lock/s/x", `{}`, 400, `POST /v1/session/KEYSPACE`},
			{"POST", "/v1/lock/s/x", `{"session":"9"}`, 409, `"code":"session_lost"`},
			{"POST", "/v1/lock/s/x", `{"session":"1","wait":"2h"}`, 400, `at most 1h`},
			{"POST", "/v1/lock/s/x", `{"session":"1","mode":"odd"}`, 400, `exclusive, shared or place`},
			{"POST", "/v1/lock/s/x", `{"session":"1","places":2}`, 400, `places`},
			{"POST", "/v1/lock/s/x", `{"session":"1","value":"a","value_b64":"YQ=="}`, 400, `exclude each other`},
			{"POST", "/v1/lock/s/x", "{\"session\":\"1\",\"value\":\"\xff\"}", 400, `not UTF-8`},
			{"POST", "/v1/lock/s/" + long, `{"session":"1"}`, 400, `1 to 1024 bytes`},
			{"POST", "/v1/lock/s", `{"session":"1"}`, 400, `a name`},
			{"POST", "/v1/lock/k/x", `{"session":"1"}`, 412, `"code":"needs_strong"`},
		},
		"elections": {
			{"POST", "/v1/session/s", "", 200, `"id":"1"`},
			{"GET", "/v1/election/s/e", "", 200, `{"leader":"","known":true}`},
			{"POST", "/v1/election/s/e", `{"session":"1","value":"n1"}`, 200, `{"leader":"1","value":"n1","token":1,"known":true}`},
			{"GET", "/v1/election/s/e", "", 200, `{"leader":"1","value":"n1","token":1,"known":true}`},
			{"PUT", "/v1/election/s/e", `{"token":1,"value_b64":"/w=="}`, 200, `"proclaimed":true`},
			{"GET", "/v1/election/s/e", "", 200, `{"leader":"1","value_b64":"/w==","token":1,"known":true}`},
			{"PUT", "/v1/election/s/e", `{"token":7,"value":"x"}`, 409, `"code":"not_held"`},
			{"PUT", "/v1/election/s/e", `{"value":"x"}`, 400, `token says`},
			{"DELETE", "/v1/election/s/e?session=1", "", 200, `"released":true`},
			{"GET", "/v1/election/s/e", "", 200, `{"leader":"","known":true}`},
			{"POST", "/v1/election/s/e/watch", "", 405, `allowed here: GET`},
		},
		"keys": {
			{"PUT", "/v1/kv/s/a?if-absent", "1", 200, `{"version":"2","token":"2"}`},
			{"PUT", "/v1/kv/s/a?if-absent", "2", 409, `"code":"conflict"`},
			{"PUT", "/v1/kv/s/a?if-version=2", "2", 200, `"version":"3"`},
			{"PUT", "/v1/kv/s/a?if-version=2", "3", 409, `"code":"conflict"`},
			{"PUT", "/v1/kv/s/a?request-id=r1&if-version=3", "4", 200, `"version":"4"`},
			{"PUT", "/v1/kv/s/a?request-id=r1&if-version=3", "4", 200, `"version":"4"`},
			{"PUT", "/v1/kv/s/a?request-id=r2&if-version=3", "4", 409, `"code":"conflict"`},
			{"PUT", "/v1/kv/s/a?request-id=r3&if-absent&if-version=3", "4", 400, `exclude each other`},
			{"PUT", "/v1/kv/s/a?request-id=r3&if-version=5-1", "4", 400, `not the version of a strong`},
			{"PUT", "/v1/kv/s/a?request-id=r3&ttl=1s", "4", 412, `"code":"needs_eventual"`},
			{"PUT", "/v1/kv/s/a?ttl=1s", "4", 412, `"code":"needs_eventual"`},
			{"PUT", "/v1/kv/s/a?request-id=" + strings.Repeat("x", 65), "4", 400, `1 to 64 bytes`},
			{"PUT", "/v1/kv/s/a?session=99", "4", 409, `"code":"session_lost"`},
			{"GET", "/v1/kv/s/a", "", 200, "4"},
			{"GET", "/v1/kv/s/a?revision=2", "", 200, "1"},
			{"GET", "/v1/kv/s/a?revision=99", "", 400, `"code":"future_revision"`},
			{"GET", "/v1/kv/s/a?revision=x", "", 400, `is a number`},
			{"GET", "/v1/kv/s/none", "", 404, `not_found`},
			{"GET", "/v1/keys/s?values&revision=2", "", 200, `{"key":"a","value":"MQ==","version":"2"}`},
			{"GET", "/v1/keys/s?revision=99", "", 400, `"code":"future_revision"`},
			{"GET", "/v1/keys/s?consistency=linearizable", "", 200, `"key":"a"`},
			{"GET", "/v1/keys/k?consistency=linearizable", "", 412, `"code":"needs_strong"`},
			{"GET", "/v1/keys/none?revision=1", "", 412, `"code":"needs_strong"`},
			{"GET", "/v1/kv/none/a?revision=1", "", 412, `"code":"needs_strong"`},
			{"DELETE", "/v1/kv/none/a?if-version=1", "", 412, `"code":"needs_strong"`},
			{"DELETE", "/v1/kv/s/a?if-version=2", "", 409, `"code":"conflict"`},
			{"DELETE", "/v1/kv/s/a?request-id=r4&if-version=2", "", 409, `"code":"conflict"`},
			{"DELETE", "/v1/kv/s/a?request-id=r5", "", 200, `{"deleted":true,"version":"5","token":"5"}`},
			{"DELETE", "/v1/kv/s/a?request-id=r5", "", 200, `{"deleted":true,"version":"5","token":"5"}`},
			{"DELETE", "/v1/kv/s/a?request-id=r6", "", 200, `{"deleted":false,"version":"","token":""}`},
			{"GET", "/v1/watch/s?from=0&exact=maybe", "", 400, `true or false`},
		},
		"transactions": {
			{"POST", "/v1/txn/s", `{"then":[{"put":{"key":"a","value":"1"}},{"put":{"key_b64":"/w==","value_b64":"/w=="}}]}`, 200, `{"succeeded":true,"results":[{},{}],"version":"2"}`},
			{"POST", "/v1/txn/s", `{"compare":[{"key":"a","target":"version","op":"=","value":1},{"key":"a","target":"mod","op":"<","value":"3"},{"key":"a","target":"value","value":"1"}],"then":[{"get":{"key":"a"}}],"else":[{"delete":{"key":"a"}}]}`,
				200, `{"succeeded":true,"results":[{"entries":[{"key":"a","value":"MQ==","version":"2","create":2,"mod":2,"puts":1}]}],"version":"2"}`},
			{"POST", "/v1/txn/s", `{"compare":[{"key":"a","target":"value","op":"!=","value":"1"}],"else":[{"get":{"prefix":"","limit":1}},{"txn":{"then":[{"delete":{"key":"a"}}]}}]}`,
				200, `{"succeeded":false,"results":[{"entries":[{"key":"a"`},
			{"GET", "/v1/kv/s/a", "", 404, `not_found`},
			{"POST", "/v1/txn/s?request-id=x", `{"then":[{"put":{"key":"b","value":"1"}}]}`, 200, `"version":"4"`},
			{"POST", "/v1/txn/s?request-id=x", `{"then":[{"put":{"key":"b","value":"1"}}]}`, 200, `"version":"4"`},
			{"POST", "/v1/txn/s", `{"then":[{"get":{"prefix":"b"}},{"get":{"key":"a","end":"c"}}]}`, 200, `{"succeeded":true,"results":[{"entries":[{"key":"b"`},
			{"POST", "/v1/txn/s", `{"compare":[{"key":"lock","target":"token","value":7}],"then":[{"put":{"key":"c","value":"1"}}]}`, 200, `{"succeeded":false,"results":[],"version":"4"}`},
			{"POST", "/v1/txn/s", `{"then":[{"put":{"key":"a"}},{"put":{"key":"a"}}]}`, 400, `changed twice`},
			{"POST", "/v1/txn/s", `{"then":[{"get":{"key":"a","revision":99}}]}`, 400, `"code":"future_revision"`},
			{"POST", "/v1/txn/s", `{"then":[{}]}`, 400, `exactly one of`},
			{"POST", "/v1/txn/s", `{"then":[{"put":{"key":"a"},"get":{"key":"a"}}]}`, 400, `exactly one of`},
			{"POST", "/v1/txn/s", `{"then":[{"put":{"value":"a"}}]}`, 400, `1 to 1024 bytes`},
			{"POST", "/v1/txn/s", `{"then":[{"get":{"prefix":"a","key":"b"}}]}`, 400, `stands alone`},
			{"POST", "/v1/txn/s", `{"compare":[{"key":"a","target":"size","value":1}]}`, 400, `target is`},
			{"POST", "/v1/txn/s", `{"compare":[{"key":"a","target":"mod","op":">=","value":1}]}`, 400, `op is`},
			{"POST", "/v1/txn/s", `{"compare":[{"key":"a","target":"mod","value":"x"}]}`, 400, `is a number`},
			{"POST", "/v1/txn/s", `{"compare":[{"key":"a","target":"value","value":1}]}`, 400, `is text`},
			{"POST", "/v1/txn/s", strings.Repeat(`{"then":[{"txn":`, 5) + `{}` + strings.Repeat(`}]}`, 5), 400, `nested`},
			{"POST", "/v1/txn/s", `{"then":[` + strings.Repeat(`{"get":{"key":"a"}},`, 4096) + `{"get":{"key":"a"}}]}`, 400, `at most 4096`},
			{"POST", "/v1/txn/s", `[`, 400, `the body is`},
			{"POST", "/v1/txn/k", `{}`, 412, `"code":"needs_strong"`},
			{"POST", "/v1/txn/s/x", `{}`, 400, `the path is`},
			{"GET", "/v1/txn/s", ``, 405, `allowed here: POST`},
		},
		"pools": {
			{"POST", "/v1/pool/s/p", `{}`, 404, `not_found`},
			{"PUT", "/v1/pool/s/p", `{"first":0,"last":7}`, 200, `{"first":0,"last":7,"name":"p"}`},
			{"PUT", "/v1/pool/s/p", `{"first":0}`, 400, `both included`},
			{"POST", "/v1/pool/s/p?request-id=a", `{"size":4,"align":4,"label":"x"}`, 200, `{"first":0,"size":4,"token":1,"label":"x"}`},
			{"POST", "/v1/pool/s/p?request-id=a", `{"size":4,"align":4,"label":"x"}`, 200, `{"first":0,"size":4,"token":1,"label":"x"}`},
			{"POST", "/v1/pool/s/p", `{"at":6}`, 200, `{"first":6,"size":1,"token":2}`},
			{"POST", "/v1/pool/s/p", `{"at":6}`, 409, `"code":"exhausted"`},
			{"POST", "/v1/pool/s/p", `{}`, 200, `{"first":4,`},
			{"POST", "/v1/pool/s/p", `{}`, 200, `{"first":5,`},
			{"GET", "/v1/pool/s/p", ``, 200, `{"allocations":[{"first":0,"size":4,"token":1,"label":"x"},{"first":4,"size":1,"token":3},{"first":5,"size":1,"token":4},{"first":6,"size":1,"token":2}],"name":"p"}`},
			{"DELETE", "/v1/pool/s/p", ``, 409, `"code":"conflict"`},
			{"DELETE", "/v1/pool/s/p?first=0&token=9", ``, 409, `"code":"not_held"`},
			{"DELETE", "/v1/pool/s/p?first=0", ``, 400, `both first and token`},
			{"DELETE", "/v1/pool/s/p?first=0&token=1", ``, 200, `{"freed":0,"name":"p"}`},
			{"PUT", "/v1/pool/s/empty", `{"first":0,"last":7}`, 200, `"empty"`},
			{"GET", "/v1/pool/s/empty", ``, 200, `"allocations":[]`},
			{"DELETE", "/v1/pool/s/empty", ``, 200, `"removed":true`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := start(t, newStrongCluster(), Options{})
			run(t, addr, steps)
		})
	}
}

// TestStrongBodies: what is too large is refused, whether its length is announced or not.
func TestStrongBodies(t *testing.T) {
	s := NewServer(newStrongCluster(), Options{})
	for _, announced := range []bool{true, false} {
		body := `{"then":[{"put":{"key":"a","value":"` + strings.Repeat("x", maxStrongBody) + `"}}]}`
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/txn/s", strings.NewReader(body))
		if !announced {
			r.ContentLength = -1
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(w.Body.String(), `"code":"too_large"`) {
			t.Errorf("announced %v: got %d %s", announced, w.Code, w.Body)
		}
		if n := s.inflightBytes.Load(); n != 0 {
			t.Errorf("%d bytes are counted as in flight for ever", n)
		}
	}
}

func TestStrongAdminOverHTTP(t *testing.T) {
	b := newStrongCluster()
	_, addr := start(t, b, Options{})
	for _, tt := range []struct {
		step
		noted string
	}{
		{step{"POST", "/v1/keyspaces/new", `{"mode":"strong","voters":3,"quota":1024}`, 200, `{"mode":"strong","name":"new"}`}, "create new strong 3 1024"},
		{step{"POST", "/v1/keyspaces/new", `{"mode":"strong","join":true}`, 400, `alone`}, ""},
		{step{"POST", "/v1/keyspaces/new", `{"mode":"strong","voters":-1}`, 400, `1, 3 or 5`}, ""},
		{step{"POST", "/v1/keyspaces/new", `{"join":true}`, 200, `"joined":true`}, "join new"},
		{step{"DELETE", "/v1/keyspaces/s", ``, 200, `"removed":true`}, "remove s"},
		{step{"GET", "/v1/keyspaces/s/strong", ``, 200, `{"name":"s","group":"s#1","epoch":0,"leader":"n1","term":3,"voters":[{"server":"n1","replica":"n1/ab","role":"voter","alive":true}]`}, "info s"},
		{step{"GET", "/v1/keyspaces/s", ``, 200, `{"name":"s","mode":"strong","members":[],"keys":0,"bytes":0,"digest":"","voters":["n1"],"leader":"n1"}`}, "info s"},
		{step{"POST", "/v1/keyspaces/s/voters/n%202", ``, 200, `{"added":"n 2","name":"s"}`}, "add s n 2"},
		{step{"DELETE", "/v1/keyspaces/s/voters/n2", ``, 200, `{"name":"s","removed":"n2"}`}, "rm s n2"},
		{step{"POST", "/v1/keyspaces/s/voters/", ``, 400, `voters/SERVER`}, ""},
		{step{"POST", "/v1/keyspaces/s/recover", `{"survivor":"n1"}`, 200, `{"epoch":2,"survivor":"n1","index":7,"term":3}`}, "recover s n1"},
		{step{"POST", "/v1/keyspaces/s/recover", `{}`, 400, `is lost`}, ""},
		{step{"POST", "/v1/servers/n1/decommission", ``, 200, `{"decommissioned":"n1"}`}, "decommission n1"},
		{step{"POST", "/v1/servers//decommission", ``, 400, `names no server`}, ""},
		{step{"POST", "/v1/servers/n1", ``, 404, `no such path`}, ""},
		{step{"GET", "/v1/keyspaces/s/other", ``, 404, `no such path`}, ""},
	} {
		run(t, addr, []step{tt.step})
		if got := b.noted(); got != tt.noted {
			t.Errorf("%s %s: the backend was asked %q, want %q", tt.method, tt.target, got, tt.noted)
		}
	}
}

// TestStrongOutcomes: not applied, unknown and a read out of time stay apart, over HTTP and
// over the native protocol.
func TestStrongOutcomes(t *testing.T) {
	put := &client.StrongCall{Kind: client.CallTxn, Txn: &client.Txn{Then: []client.TxnOp{{Put: &client.TxnPut{Key: "a"}}}}}
	get := &client.StrongCall{Kind: client.CallTxn, Txn: &client.Txn{Then: []client.TxnOp{{Get: &client.TxnGet{Key: "a"}}}}}
	for _, tt := range []struct {
		name   string
		fault  error
		call   *client.StrongCall
		body   string
		status int
		code   string
		want   error
	}{
		{"no quorum", client.ErrNoQuorum, put, `{"then":[{"put":{"key":"a"}}]}`, 503, "no_quorum", client.ErrNoQuorum},
		{"no quorum in time", fmt.Errorf("%w: %w", client.ErrNoQuorum, context.DeadlineExceeded), put, `{"then":[{"put":{"key":"a"}}]}`, 503, "no_quorum", client.ErrNoQuorum},
		{"not reachable", client.ErrUnavailable, put, `{"then":[{"put":{"key":"a"}}]}`, 503, "unavailable", client.ErrUnavailable},
		{"unknown", client.ErrUnknownOutcome, put, `{"then":[{"put":{"key":"a"}}]}`, 504, "unknown_outcome", client.ErrUnknownOutcome},
		{"out of time", context.DeadlineExceeded, put, `{"then":[{"put":{"key":"a"}}]}`, 504, "unknown_outcome", client.ErrUnknownOutcome},
		{"a read out of time", context.DeadlineExceeded, get, `{"then":[{"get":{"key":"a"}}]}`, 504, "timeout", client.ErrTimeout},
		{"full", client.ErrFull, put, `{"then":[{"put":{"key":"a"}}]}`, 507, "full", client.ErrFull},
		{"compacted", client.ErrCompacted, get, `{"then":[{"get":{"key":"a"}}]}`, 410, "compacted", client.ErrCompacted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newStrongCluster()
			b.s.SetFaults(func(context.Context, *client.StrongCall) error { return tt.fault }, nil)
			_, addr := start(t, b, Options{})
			run(t, addr, []step{{"POST", "/v1/txn/s", tt.body, tt.status, `"code":"` + tt.code + `"`}})
			c := dial(t, addr, nil)
			if _, err := c.StrongCall(t.Context(), "s", tt.call); !errors.Is(err, tt.want) || errors.Is(err, client.ErrUnknownOutcome) != (tt.want == client.ErrUnknownOutcome) {
				t.Errorf("native: got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestElectionWatchOverHTTP(t *testing.T) {
	b := newStrongCluster()
	s, addr := start(t, b, Options{Heartbeat: 200 * time.Millisecond})
	run(t, addr, []step{{"POST", "/v1/session/s", "", 200, `"id":"1"`}})
	resp, lines := stream(t, addr, "/v1/election/s/a/e/watch")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("got %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("the stream ended before %s: %v", want, lines.Err())
	}
	until(`{"leader":"","known":true}`)
	run(t, addr, []step{{"POST", "/v1/election/s/a/e", `{"session":"1","value":"n1"}`, 200, `"leader":"1"`}})
	until(`{"leader":"1","value":"n1","token":1,"known":true}`)
	until(`{"leader":"1","value":"n1","token":1,"known":true}`) // a sign of life
	b.s.SetFaults(func(context.Context, *client.StrongCall) error { return client.ErrNoQuorum }, nil)
	until(`{"leader":"1","value":"n1","token":1,"known":false}`)
	b.s.SetFaults(nil, nil)
	until(`"known":true`)
	go s.Shutdown(context.Background())
	until(`"code":"draining"`)
}

// TestLockWaitsOverHTTP: a waiting request is granted when the lock comes free; one whose
// client hangs up leaves no claim behind, nor does the end of the server.
func TestLockWaitsOverHTTP(t *testing.T) {
	b := newStrongCluster()
	s, addr := start(t, b, Options{Timeout: 50 * time.Millisecond}) // wait comes on top
	run(t, addr, []step{
		{"POST", "/v1/session/s", `{"ttl":"1h"}`, 200, `"id":"1"`}, {"POST", "/v1/session/s", `{"ttl":"1h"}`, 200, `"id":"2"`},
		{"POST", "/v1/lock/s/l", `{"session":"1"}`, 200, `"token":1`},
	})
	waiting := func(n int) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for len(b.s.State().Waiting("l", 10)) != n {
			if time.Now().After(deadline) {
				t.Fatalf("%d claims wait, want %d", len(b.s.State().Waiting("l", 10)), n)
			}
			time.Sleep(time.Millisecond)
		}
	}
	ask := func(ctx context.Context) chan string {
		answer := make(chan string, 1)
		go func() {
			req, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+"/v1/lock/s/l", strings.NewReader(`{"session":"2","wait":"30s"}`))
			if err != nil {
				answer <- err.Error()
				return
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				answer <- err.Error()
				return
			}
			defer resp.Body.Close()
			var body struct {
				Token uint64
				Error struct{ Code string }
			}
			err = json.NewDecoder(resp.Body).Decode(&body)
			answer <- fmt.Sprint(resp.StatusCode, body.Token, body.Error.Code, err)
		}()
		waiting(1)
		return answer
	}
	ctx, hangUp := context.WithCancel(t.Context())
	gone := ask(ctx)
	hangUp()
	<-gone
	waiting(0)
	granted := ask(t.Context())
	run(t, addr, []step{{"DELETE", "/v1/lock/s/l?session=1", "", 200, `"released":true`}})
	if got := <-granted; got != "200 2<nil>" {
		t.Errorf("the one that waited: got %s", got)
	}
	run(t, addr, []step{{"DELETE", "/v1/lock/s/l?session=2", "", 200, ``}, {"POST", "/v1/lock/s/l", `{"session":"1"}`, 200, `"token":3`}})
	drained := ask(t.Context())
	s.Shutdown(context.Background())
	if got := <-drained; !strings.Contains(got, "503") || !strings.Contains(got, "draining") {
		t.Errorf("at the end of the server: got %s", got)
	}
	waiting(0)
}

func TestStrongConformanceOverNative(t *testing.T) {
	clienttest.RunStrong(t, func(t *testing.T) client.Strong {
		_, addr := start(t, newStrongCluster(), Options{})
		s, err := dial(t, addr, nil).Strong(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// TestStrongOverNative: the high level through a Client.
func TestStrongOverNative(t *testing.T) {
	b := newStrongCluster()
	_, addr := start(t, b, Options{})
	c := dial(t, addr, nil)
	ctx := t.Context()
	s, err := c.Strong(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Strong(ctx, "s"); err != nil || again != s {
		t.Errorf("a second handle: got %v, %v", again, err)
	}
	held, err := s.Lock(ctx, "l", &client.LockOptions{Value: []byte("me")})
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.LockInfo(ctx, "l")
	if err != nil || len(info.Holders) != 1 || info.Holders[0].Token != held.Token() || string(info.Holders[0].Value) != "me" {
		t.Errorf("LockInfo: got %+v, %v", info, err)
	}
	res, err := s.Txn(ctx, &client.Txn{
		Compares: []client.Compare{client.Guard("l", held.Token())},
		Then:     []client.TxnOp{{Put: &client.TxnPut{Key: "a", Value: []byte("1")}}, {Get: &client.TxnGet{Key: "a"}}},
	})
	if err != nil || !res.Succeeded || len(res.Results) != 2 || string(res.Results[1].Entries[0].Value) != "1" {
		t.Errorf("Txn: got %+v, %v", res, err)
	}
	v, err := s.Put(ctx, "a", []byte("2"), &client.PutOptions{IfVersion: client.Version{Seq: res.Revision}})
	if err != nil || v != (client.Version{Seq: res.Revision + 1}) {
		t.Errorf("Put: got %v, %v", v, err)
	}
	if _, err := s.Put(ctx, "a", nil, &client.PutOptions{IfAbsent: true}); !errors.Is(err, client.ErrConflict) {
		t.Errorf("Put if absent: got %v", err)
	}
	for _, tt := range []struct {
		o           *client.GetOptions
		value, what string
	}{
		{nil, "2", "local=false linearizable=false"},
		{&client.GetOptions{Local: true}, "2", "local=true linearizable=false"},
		{&client.GetOptions{Linearizable: true}, "2", "local=false linearizable=true"},
		{&client.GetOptions{Revision: res.Revision}, "1", "local=false linearizable=false"},
	} {
		if e, err := s.Get(ctx, "a", tt.o); err != nil || string(e.Value) != tt.value || e.Origin != tt.what {
			t.Errorf("Get %+v: got %q %q, %v", tt.o, e.Value, e.Origin, err)
		}
	}
	for e, err := range s.List(ctx, "", &client.ListOptions{Revision: res.Revision}) {
		if err != nil || string(e.Value) != "1" {
			t.Errorf("List: got %q, %v", e.Value, err)
		}
	}
	if _, err := s.Delete(ctx, "a", &client.DeleteOptions{IfVersion: client.Version{Seq: 1}}); !errors.Is(err, client.ErrConflict) {
		t.Errorf("Delete: got %v", err)
	}
	pool := s.Allocator("p")
	if err := pool.Define(ctx, 1, 9); err != nil {
		t.Fatal(err)
	}
	block, err := pool.Allocate(ctx, &client.AllocateOptions{Label: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := pool.List(ctx); err != nil || len(all) != 1 || all[0] != block {
		t.Errorf("List: got %+v, %v", all, err)
	}
	eventual, err := c.Strong(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := eventual.Lock(ctx, "l", nil); !errors.Is(err, client.ErrNeedsStrong) {
		t.Errorf("Lock on an eventual keyspace: got %v", err)
	}
	c.Close()
	for range b.s.State().Leases {
		t.Error("a session is left after Close")
	}
	if _, err := c.Strong(ctx, "s"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Strong of a closed client: got %v", err)
	}
}

func TestStrongAdminOverNative(t *testing.T) {
	b := newStrongCluster()
	_, addr := start(t, b, Options{})
	c := dial(t, addr, nil)
	ctx := t.Context()
	info := func() error {
		i, err := c.StrongInfo(ctx, "s")
		if err == nil && (i.Leader != "n1" || len(i.Voters) != 1 || i.Voters[0].Replica != "n1/ab") {
			err = fmt.Errorf("got %+v", i)
		}
		return err
	}
	recovery := func() error {
		r, err := c.RecoverKeyspace(ctx, "s", "n1")
		if err == nil && r != (client.RecoveryReport{Epoch: 2, Survivor: "n1", Index: 7, Term: 3}) {
			err = fmt.Errorf("got %+v", r)
		}
		return err
	}
	for _, tt := range []struct {
		noted string
		do    func() error
	}{
		{"create new strong 3 1024", func() error {
			return c.CreateKeyspace(ctx, client.KeyspaceSpec{Name: "new", Mode: "strong", Voters: 3, Quota: 1024})
		}},
		{"remove s", func() error { return c.RemoveKeyspace(ctx, "s") }},
		{"info s", info},
		{"add s n2", func() error { return c.AddVoter(ctx, "s", "n2") }},
		{"rm s n2", func() error { return c.RemoveVoter(ctx, "s", "n2") }},
		{"decommission n1", func() error { return c.Decommission(ctx, "n1") }},
		{"recover s n1", recovery},
	} {
		if err := tt.do(); err != nil {
			t.Errorf("%s: %v", tt.noted, err)
		}
		if got := b.noted(); got != tt.noted {
			t.Errorf("the backend was asked %q, want %q", got, tt.noted)
		}
		for _, want := range []error{client.ErrConflict, client.ErrTimeout, client.ErrUnknownOutcome, client.ErrNoQuorum} {
			b.fail = want
			if err := tt.do(); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", tt.noted, err, want)
			}
			b.fail = nil
			b.noted()
		}
	}
	raw := rawDial(t, addr)
	for id, body := range [][]byte{nil, {0x90}, {0xdd, 0xff, 0xff, 0xff, 0xff}, wire.AppendAdmin(nil, &wire.AdminCall{Op: 99})} {
		for _, typ := range []wire.RequestType{wire.Admin, wire.StrongCall} {
			raw.send(t, &wire.Request{ID: uint64(id + 1), Type: typ, Keyspace: "s", Value: body})
			if r := raw.receive(t); r.Type != wire.Error || r.Code != "bad_request" {
				t.Errorf("%v of %x: got %+v", typ, body, r)
			}
		}
	}
}

// TestStrongWatchOverNative: transactions arrive whole and once, though the connection
// breaks, and a compacted revision is told to who wants no snapshot.
func TestStrongWatchOverNative(t *testing.T) {
	b := newStrongCluster()
	_, addr := start(t, b, Options{})
	p := newProxy(t, addr)
	c := dial(t, p.addr(), nil)
	s, err := c.Strong(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Watch(t.Context(), "", &client.WatchOptions{From: "1", Exact: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	put := func(value string) {
		t.Helper()
		ops := make([]client.TxnOp, 3)
		for i := range ops {
			ops[i].Put = &client.TxnPut{Key: fmt.Sprint(i), Value: []byte(value)}
		}
		if _, err := b.s.StrongCall(t.Context(), "s", &client.StrongCall{Kind: client.CallTxn, Txn: &client.Txn{Then: ops}}); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 5 {
		put(fmt.Sprint(round))
		for i := range 3 {
			ev, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprint(round); ev.Entry.Key != fmt.Sprint(i) || string(ev.Entry.Value) != want || ev.More != (i < 2) {
				t.Fatalf("round %d: got %+v", round, ev)
			}
			if want := fmt.Sprint(round + 2); i == 2 && string(ev.Cursor) != want {
				t.Fatalf("round %d: cursor %s, want %s", round, ev.Cursor, want)
			}
			if i == 0 {
				p.cut()
			}
		}
	}
	if _, err := b.s.StrongCall(t.Context(), "s", &client.StrongCall{Kind: client.CallCompact, Revision: 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Watch(t.Context(), "", &client.WatchOptions{From: "2", Exact: true}); !errors.Is(err, client.ErrCompacted) {
		t.Errorf("a compacted revision: got %v", err)
	}
}

// TestWaitsEndWithTheServer: calls that wait do not hold up the end of the server, and the
// client asks again.
func TestWaitsEndWithTheServer(t *testing.T) {
	b := newStrongCluster()
	s, addr := start(t, b, Options{})
	c := dial(t, addr, &client.DialOptions{FailFast: true})
	began := make(chan struct{})
	b.s.SetFaults(func(context.Context, *client.StrongCall) error { close(began); return nil }, nil)
	done := make(chan error)
	go func() {
		_, err := c.StrongCall(t.Context(), "s", &client.StrongCall{Kind: client.CallLockInfo, Name: "l", Revision: 1, Wait: 600_000})
		done <- err
	}()
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-done; !errors.Is(err, client.ErrDraining) {
		t.Errorf("got %v, want draining", err)
	}
}
