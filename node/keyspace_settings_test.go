package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

func ptr[T any](v T) *T { return &v }

func change(t *testing.T, o client.KeyspaceOperator, name string, c client.SettingsChange) client.KeyspaceSettings {
	t.Helper()
	s, err := o.ChangeSettings(t.Context(), name, c)
	if err != nil {
		t.Fatalf("change the settings of %s: %v", name, err)
	}
	return s
}

func refused(err error) bool { return errors.Is(err, client.ErrFrozen) }

func tryPut(ks client.Keyspace, key string) error {
	_, err := ks.Put(context.Background(), key, []byte("v"), nil)
	return err
}

// What is set at one node holds at every other, before its first write after a restart, too,
// and for those that have others write for them. It is gone with the keyspace.
func TestSettingsEverywhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	nodes := cluster(t, 2)
	cfg := node.Config{Name: "n3", DataDir: dir, Join: []string{nodes[0].MeshAddr()}}
	third := start(t, cfg)
	out := start(t, node.Config{Name: "out", Join: []string{nodes[0].MeshAddr()}, Keyspaces: []string{"other"}})
	mustPut(t, open(t, nodes[0], "ks"), "k", "1", nil)
	equal(t, "ks", nodes[0], nodes[1], third)

	until(t, "the node outside knows the keyspace", func() bool { _, err := out.Settings(t.Context(), "ks"); return err == nil })
	got := change(t, out, "ks", client.SettingsChange{Frozen: ptr(true), MaxKeys: ptr(int64(7))})
	want := client.KeyspaceSettings{Frozen: true, MaxKeys: 7}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, n := range []*node.Node{nodes[0], nodes[1], third} {
		ks := open(t, n, "ks")
		until(t, "frozen at "+n.Name(), func() bool { return refused(tryPut(ks, "k")) })
		if info, err := ks.Info(t.Context()); err != nil || info.Settings != want {
			t.Errorf("%s: got %+v, %v", n.Name(), info, err)
		}
	}
	until(t, "frozen where it is not held", func() bool { return refused(tryPut(open(t, out, "ks"), "k")) })
	if err := out.JoinKeyspace(t.Context(), "ks"); err != nil {
		t.Fatal(err)
	}
	if err := tryPut(open(t, out, "ks"), "k"); !refused(err) {
		t.Errorf("the first put after it was joined: %v", err)
	}
	stop(t, third)
	third = start(t, cfg)
	if err := tryPut(open(t, third, "ks"), "k"); !refused(err) {
		t.Errorf("the first put after a restart: %v", err)
	}

	if got := change(t, third, "ks", client.SettingsChange{Frozen: ptr(false)}); got != (client.KeyspaceSettings{MaxKeys: 7}) {
		t.Errorf("thawed: got %+v", got)
	}
	mustPut(t, open(t, third, "ks"), "k", "3", nil) // here at once
	until(t, "thawed elsewhere", func() bool { return tryPut(open(t, nodes[1], "ks"), "k") == nil })

	change(t, third, "ks", client.SettingsChange{Frozen: ptr(true)})
	if err := nodes[0].RemoveKeyspace(t.Context(), "ks"); err != nil {
		t.Fatal(err)
	}
	all := []*node.Node{nodes[0], nodes[1], third, out}
	for _, n := range all {
		until(t, "removed at "+n.Name(), func() bool { return !holds(t, n, "ks") })
		until(t, "no settings are left at "+n.Name(), func() bool { return len(inCatalog(t, n, "ks/")) == 0 })
	}
	mustPut(t, open(t, nodes[1], "ks"), "new", "1", nil)
	equal(t, "ks", all...)
	for _, n := range all {
		mustPut(t, open(t, n, "ks"), "new", "2", nil)
		if s, err := n.Settings(t.Context(), "ks"); err != nil || s != (client.KeyspaceSettings{}) {
			t.Errorf("%s: of the new one: got %+v, %v", n.Name(), s, err)
		}
	}
	change(t, nodes[1], "ks", client.SettingsChange{Rate: ptr(int64(9))})
	if got := inCatalog(t, nodes[1], "ks"); !slices.Equal(got, []string{"ks", "ks#1/rate"}) {
		t.Errorf("entries of the catalog: got %q", got)
	}
	if n := drops(t, nodes[0], "catalog_malformed") + drops(t, nodes[0], "setting_not_understood"); n != 0 {
		t.Errorf("%d entries of the catalog were not understood", n)
	}
}

func inCatalog(t *testing.T, n *node.Node, prefix string) (keys []string) {
	t.Helper()
	ks, err := n.Lookup("_keyspaces")
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range ks.List(t.Context(), prefix, nil) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, e.Key)
	}
	return keys
}

func TestSettingsRefusals(t *testing.T) {
	n := start(t, node.Config{Name: "n1", Keyspaces: []string{"here"}})
	for _, c := range []struct {
		name   string
		ks     string
		change client.SettingsChange
		want   error
	}{
		{"of the system", "_members", client.SettingsChange{Rate: ptr(int64(1))}, client.ErrDenied},
		{"no name", "A", client.SettingsChange{Rate: ptr(int64(1))}, client.ErrBadRequest},
		{"not here", "elsewhere", client.SettingsChange{Rate: ptr(int64(1))}, client.ErrNotFound},
		{"negative", "here", client.SettingsChange{Rate: ptr(int64(-1))}, client.ErrBadRequest},
		{"too much", "here", client.SettingsChange{MaxValue: ptr(int64(1<<20 + 1))}, client.ErrBadRequest},
		{"schema too long", "here", client.SettingsChange{Schema: ptr(strings.Repeat(" ", client.MaxSchema+1))}, client.ErrTooLarge},
		{"no schema", "here", client.SettingsChange{Schema: ptr("{")}, client.ErrBadRequest},
	} {
		if _, err := n.ChangeSettings(t.Context(), c.ks, c.change); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if holds(t, n, "here") {
		t.Error("a refused change made the keyspace")
	}
	change(t, n, "here", client.SettingsChange{MaxKeys: ptr(int64(1))})
	mustPut(t, open(t, n, "here"), "a", "1", nil)
	if err := tryPut(open(t, n, "here"), "b"); !errors.Is(err, client.ErrFull) {
		t.Errorf("set before the first put: got %v", err)
	}
	st, err := n.Status(t.Context())
	if err != nil || st.Keyspaces[len(st.Keyspaces)-1].Refused["max_keys"] != 1 {
		t.Errorf("status: %+v, %v", st.Keyspaces, err)
	}
}

// The same over the native protocol and over HTTP.
func TestSettingsAndHistoryOverAPI(t *testing.T) {
	n := start(t, node.Config{Name: "n1", HTTP: "127.0.0.1:0"})
	c, err := client.Dial(t.Context(), n.APIAddr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Settings(t.Context(), "ks"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("settings of no keyspace: %v", err)
	}
	if _, err := c.History(t.Context(), "ks", "k", nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("history of no keyspace: %v", err)
	}
	schema := `{"type":"object","required":["vtep"]}`
	got := change(t, c, "ks", client.SettingsChange{Schema: &schema, Rate: ptr(int64(100))})
	if want := (client.KeyspaceSettings{Schema: schema, Rate: 100}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	ks := open(t, n, "ks")
	mustPut(t, ks, "k", `{"vtep":"10.0.0.1"}`, nil)
	mustPut(t, ks, "k", `{"vtep":"10.0.0.2"}`, nil)
	h, err := c.History(t.Context(), "ks", "k", nil)
	if err != nil || len(h.Events) != 2 || h.Node != "n1" {
		t.Fatalf("history: got %+v, %v", h, err)
	}
	embedded, err := n.History(t.Context(), "ks", "k", nil)
	if err != nil || len(embedded.Events) != 2 || embedded.Events[0].Version != h.Events[0].Version || !embedded.Events[0].Arrived.Equal(h.Events[0].Arrived) ||
		len(h.Events[0].Removes) != 1 || h.Events[0].Removes[0] != h.Events[1].Version || string(h.Events[1].Value) != `{"vtep":"10.0.0.1"}` {
		t.Errorf("history: got %+v remote, %+v embedded, %v", h, embedded, err)
	}

	call := func(method, path, body string, status int, into any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.APIAddr()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status {
			t.Fatalf("%s %s: %d %s, %v; want %d", method, path, resp.StatusCode, text, err, status)
		}
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s %s: %s: %v", method, path, text, err)
		}
	}
	var settings client.KeyspaceSettings
	call("GET", "/v1/keyspaces/ks/settings", "", 200, &settings)
	if settings != got {
		t.Errorf("GET: got %+v, want %+v", settings, got)
	}
	var failed struct {
		Error struct{ Code, Message string }
	}
	call("PUT", "/v1/kv/ks/k", `{}`, 400, &failed)
	if failed.Error.Code != "bad_request" || !strings.Contains(failed.Error.Message, "#/required") {
		t.Errorf("against the schema: got %+v", failed)
	}
	call("POST", "/v1/keyspaces/ks/settings", `{"frozen":true,"schema":{"type":"integer"}}`, 200, &settings)
	if want := (client.KeyspaceSettings{Frozen: true, Rate: 100, Schema: `{"type":"integer"}`}); settings != want {
		t.Errorf("POST: got %+v, want %+v", settings, want)
	}
	call("PUT", "/v1/kv/ks/k", `1`, 409, &failed)
	if failed.Error.Code != "frozen" {
		t.Errorf("frozen: got %+v", failed)
	}
	call("DELETE", "/v1/kv/ks/k", "", 409, &failed)
	remote, err := c.Keyspace(t.Context(), "ks")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Put(t.Context(), "k", []byte("1"), nil); !errors.Is(err, client.ErrFrozen) {
		t.Errorf("frozen, native: got %v", err)
	}
	var info struct{ Settings client.KeyspaceSettings }
	call("GET", "/v1/keyspaces/ks", "", 200, &info)
	if info.Settings != settings {
		t.Errorf("info: got %+v", info)
	}
	call("POST", "/v1/keyspaces/ks/settings", `{"schema":null,"frozen":false,"rate":0}`, 200, &settings)
	if settings = (client.KeyspaceSettings{}); settings != change(t, c, "ks", client.SettingsChange{}) {
		t.Error("not taken away")
	}
	call("POST", "/v1/keyspaces/ks/settings", `{"quota":1}`, 400, &failed)
	var told struct {
		Node   string
		Events []struct {
			Type, Version, Origin string
			Removes               []string
			Value                 []byte
		}
	}
	call("GET", "/v1/history/ks/k?limit=1", "", 200, &told)
	if told.Node != "n1" || len(told.Events) != 1 || told.Events[0].Type != "put" || string(told.Events[0].Value) != `{"vtep":"10.0.0.2"}` || len(told.Events[0].Removes) != 1 {
		t.Errorf("history: got %+v", told)
	}
	call("GET", "/v1/history/ks/k?limit=x", "", 400, &failed)
	call("GET", "/v1/history/none/k", "", 404, &failed)
}

// Where the keyspace is not held, a member tells.
func TestForwardedHistory(t *testing.T) {
	nodes := cluster(t, 1)
	out := start(t, node.Config{Name: "out", Join: []string{nodes[0].MeshAddr()}, Keyspaces: []string{"other"}})
	mustPut(t, open(t, nodes[0], "ks"), "k", "1", nil)
	until(t, "a member is known", func() bool { return value(open(t, out, "ks"), "k") == "1" })
	h, err := out.History(t.Context(), "ks", "k", nil)
	if err != nil || h.Node != "n1" || len(h.Events) != 1 || h.Events[0].Origin != "n1" {
		t.Errorf("got %+v, %v", h, err)
	}
	if _, err := out.History(t.Context(), "ks", "k", &client.HistoryOptions{Local: true}); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("only here: got %v", err)
	}
}

// Concurrent values are shown beside the newest, and a Put that sees them, through whatever
// door, leaves one.
func TestPutResolvesSiblings(t *testing.T) {
	one := start(t, node.Config{Name: "n1", HTTP: "127.0.0.1:0"})
	dir := filepath.Join(t.TempDir(), "data")
	two := start(t, node.Config{Name: "n2", DataDir: dir})
	doors := []string{"embedded", "native", "http", "delete"}
	for _, key := range doors {
		mustPut(t, open(t, one, "ks"), key, "of n1", nil)
		mustPut(t, open(t, two, "ks"), key, "of n2", nil)
	}
	stop(t, two)
	two = start(t, node.Config{Name: "n2", DataDir: dir, Join: []string{one.MeshAddr()}})
	equal(t, "ks", one, two)
	c, err := client.Dial(t.Context(), one.APIAddr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	remote, err := c.Keyspace(t.Context(), "ks")
	if err != nil {
		t.Fatal(err)
	}
	local := open(t, one, "ks")
	siblings := func(ks client.Keyspace, key string) int {
		t.Helper()
		e, err := ks.Get(t.Context(), key, &client.GetOptions{Siblings: true})
		if err != nil || string(e.Value) != "of n2" && len(e.Siblings) > 0 {
			t.Fatalf("%s: got %+v, %v", key, e, err)
		}
		for _, s := range e.Siblings {
			if string(s.Value) != "of n1" || s.Origin != "n1" || s.Version.IsZero() {
				t.Errorf("%s: got sibling %+v", key, s)
			}
		}
		return len(e.Siblings)
	}
	for _, key := range doors {
		for _, ks := range []client.Keyspace{local, remote, open(t, two, "ks")} {
			if n := siblings(ks, key); n != 1 {
				t.Fatalf("%s: %d siblings", key, n)
			}
		}
	}
	mustPut(t, local, "embedded", "resolved", nil)
	mustPut(t, remote, "native", "resolved", nil)
	req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://"+one.APIAddr()+"/v1/kv/ks/http", strings.NewReader("resolved"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.Body.Close() != nil || resp.StatusCode != 200 {
		t.Fatalf("put over HTTP: %v, %v", resp, err)
	}
	if _, err := remote.Delete(t.Context(), "delete", nil); err != nil {
		t.Fatal(err)
	}
	equal(t, "ks", one, two)
	for _, n := range []*node.Node{one, two} {
		for _, key := range doors[:3] {
			if k := siblings(open(t, n, "ks"), key); k != 0 || value(open(t, n, "ks"), key) != "resolved" {
				t.Errorf("%s at %s: %s with %d siblings", key, n.Name(), value(open(t, n, "ks"), key), k)
			}
			h, err := n.History(t.Context(), "ks", key, nil)
			if err != nil || len(h.Events) == 0 || string(h.Events[0].Value) != "resolved" || n == two && len(h.Events[0].Removes) != 2 {
				t.Errorf("history of %s at %s: %+v, %v", key, n.Name(), h, err)
			}
		}
		if v := value(open(t, n, "ks"), "delete"); v != "error: not found" {
			t.Errorf("deleted at %s: %s", n.Name(), v)
		}
	}
}
