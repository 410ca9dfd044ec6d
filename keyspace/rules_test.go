package keyspace

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
)

const vtepSchema = `{"type":"object","required":["vtep"],"properties":{"vtep":{"type":"string"},"mtu":{"type":"integer","maximum":9000}}}`

func TestSettingsRefuse(t *testing.T) {
	frozen := client.KeyspaceSettings{Frozen: true}
	for _, c := range []struct {
		name     string
		settings client.KeyspaceSettings
		key      string
		value    string
		want     error
		says     string
		reason   string
	}{
		{"frozen", frozen, "k", "v", client.ErrFrozen, "keyspace thaw ks", "frozen"},
		{"value fits", client.KeyspaceSettings{MaxValue: 3}, "k", "123", nil, "", ""},
		{"large value", client.KeyspaceSettings{MaxValue: 3}, "k", "1234", client.ErrTooLarge, "--max-value", "too_large"},
		{"keys: an overwrite", client.KeyspaceSettings{MaxKeys: 1}, "there", "another", nil, "", ""},
		{"keys: a new one", client.KeyspaceSettings{MaxKeys: 1}, "k", "", client.ErrFull, "--max-keys", "max_keys"},
		{"keys: room", client.KeyspaceSettings{MaxKeys: 2}, "k", "", nil, "", ""},
		{"bytes: the same", client.KeyspaceSettings{MaxBytes: 1}, "there", "v4lue", nil, "", ""},
		{"bytes: less", client.KeyspaceSettings{MaxBytes: 1}, "there", "", nil, "", ""},
		{"bytes: fits", client.KeyspaceSettings{MaxBytes: 13}, "k", "12", nil, "", ""},
		{"bytes: more", client.KeyspaceSettings{MaxBytes: 12}, "k", "12", client.ErrFull, "--max-bytes", "max_bytes"},
		{"bytes: more in place", client.KeyspaceSettings{MaxBytes: 10}, "there", "value!", client.ErrFull, "--max-bytes", "max_bytes"},
		{"schema", client.KeyspaceSettings{Schema: vtepSchema}, "k", `{"vtep":"a","mtu":1500}`, nil, "", ""},
		{"schema: no JSON", client.KeyspaceSettings{Schema: vtepSchema}, "k", `{"vtep":`, client.ErrBadRequest, "is no JSON", "invalid"},
		{"schema: two values", client.KeyspaceSettings{Schema: vtepSchema}, "k", `{"vtep":"a"} 1`, client.ErrBadRequest, "is no JSON", "invalid"},
		{"schema: lacks", client.KeyspaceSettings{Schema: vtepSchema}, "k", `{}`, client.ErrBadRequest, "#/required", "invalid"},
		{"schema: beyond", client.KeyspaceSettings{Schema: vtepSchema}, "k", `{"vtep":"a","mtu":9001}`, client.ErrBadRequest, "#/properties/mtu/maximum", "invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := openEmpty(testEnv())
			put(t, k, "there", "value", nil)
			if err := k.SetSettings(time.Now(), c.settings); err != nil {
				t.Fatal(err)
			}
			before, _ := k.Digest(t.Context())
			_, err := k.Put(t.Context(), c.key, []byte(c.value), nil)
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %v that says %q", err, c.want, c.says)
			}
			if c.settings.Schema != "" && err != nil && strings.Contains(err.Error(), c.value) {
				t.Errorf("the error tells the value: %v", err)
			}
			after, _ := k.Digest(t.Context())
			if (before == after) != (err != nil) {
				t.Errorf("digest before %v, after %v", before, after)
			}
			if got := k.Refused()[c.reason]; c.reason != "" && got != 1 {
				t.Errorf("refused %v, want 1 of %s", k.Refused(), c.reason)
			}
			_, err = k.Delete(t.Context(), "there", nil)
			if want := c.settings.Frozen; errors.Is(err, client.ErrFrozen) != want || !want && err != nil {
				t.Errorf("delete: got %v, frozen %v", err, want)
			}
			if err := k.SetSettings(time.Now(), client.KeyspaceSettings{}); err != nil {
				t.Fatal(err)
			}
			put(t, k, c.key, "whatever", nil)
		})
	}
}

func TestSchemaErrors(t *testing.T) {
	for _, c := range []struct{ name, schema, says string }{
		{"no JSON", `{`, "no JSON"},
		{"no schema", `{"type":"whatever"}`, "no JSON Schema"},
		{"a file", `{"$ref":"file:///etc/passwd"}`, "refer to itself"},
		{"elsewhere", `{"$ref":"https://example.com/schema"}`, "refer to itself"},
		{"a pattern that is none", `{"pattern":"("}`, "no JSON Schema"},
		{"a number that no validator takes", `{"multipleOf":1e9999999}`, "too large"},
	} {
		_, err := ReadSchema(c.schema)
		if !errors.Is(err, client.ErrBadRequest) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want one that says %q", c.name, err, c.says)
		}
		k := openEmpty(testEnv())
		if err := k.SetSettings(time.Now(), client.KeyspaceSettings{Schema: c.schema, MaxValue: 5}); err == nil || k.SchemaError() == nil {
			t.Errorf("%s: got %v, %v", c.name, err, k.SchemaError())
		}
		put(t, k, "k", "12345", nil) // not checked, as SchemaError tells
		if _, err := k.Put(t.Context(), "k", []byte("123456"), nil); !errors.Is(err, client.ErrTooLarge) {
			t.Errorf("%s: the other settings: got %v", c.name, err)
		}
	}
	deep, err := ReadSchema(`{"$ref":"#/$defs/a","$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/a"}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	nested := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	if err := deep.Check([]byte(nested)); err != nil {
		t.Errorf("a deep value: %v", err)
	}
	if err := deep.Check([]byte(strings.Repeat("[", 60_000) + strings.Repeat("]", 60_000))); !errors.Is(err, client.ErrBadRequest) {
		t.Errorf("a value deeper than JSON is read here: got %v", err)
	}
}

// Numbers of which the validator would make a panic, or minutes of work, are refused before it sees them, and what arrives with such a
// number counts as invalid.
func TestSchemaNumbers(t *testing.T) {
	for _, schema := range []string{`{"minimum":1}`, `{"multipleOf":3}`, `{"uniqueItems":true}`, `{"items":{"type":"integer"}}`, `true`} {
		s, err := ReadSchema(schema)
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range []string{"1e2000000", "-1E-2000000", "[1e999999,1e999999]", `{"a":[1e401]}`, strings.Repeat("9", 401), "1e99999999999999999999"} {
			if err := s.Check([]byte(value)); !errors.Is(err, client.ErrBadRequest) {
				t.Errorf("%s, %.20s: got %v", schema, value, err)
			}
		}
	}
	s, err := ReadSchema(`{"minimum":1}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"1e300", "1.5E2", "100"} {
		if err := s.Check([]byte(value)); err != nil {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// A node takes so many puts a second, at once or one by one. Deletes cost nothing.
func TestSettingsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := openEmpty(testEnv())
		if err := k.SetSettings(time.Now(), client.KeyspaceSettings{Rate: 5}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			put(t, k, "k", "v", nil)
		}
		_, err := k.Put(t.Context(), "k", []byte("v"), nil)
		if !errors.Is(err, client.ErrOverloaded) || !strings.Contains(err.Error(), "the next in 200ms") {
			t.Errorf("got %v", err)
		}
		if _, err := k.Delete(t.Context(), "k", nil); err != nil {
			t.Error(err)
		}
		time.Sleep(200 * time.Millisecond) // of the test's own clock
		put(t, k, "k", "v", nil)
		if _, err := k.Put(t.Context(), "k", []byte("v"), nil); !errors.Is(err, client.ErrOverloaded) {
			t.Errorf("got %v", err)
		}
	})
}

// A frozen node goes on taking what others write, though it is against the settings,
// shows and watches it, and lets expire what expires. It counts what it would have refused.
func TestFrozenConverges(t *testing.T) {
	p := newPair(t)
	s := client.KeyspaceSettings{Frozen: true, MaxValue: 3, MaxKeys: 1, Schema: `{"type":"integer"}`}
	if err := p.a.SetSettings(time.Now(), s); err != nil {
		t.Fatal(err)
	}
	w, err := p.a.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	next(t, w)
	put(t, p.b, "fits", "12", nil)
	put(t, p.b, "long", "1234", nil)
	put(t, p.b, "text", "ab", nil)
	put(t, p.b, "short-lived", "1", &client.PutOptions{TTL: 10 * time.Second})
	p.run(2 * time.Second)
	p.check("frozen", map[string]string{"fits": "12", "long": "1234", "text": "ab", "short-lived": "1"})
	if ev := next(t, w); ev.Type != client.EventPut || ev.Entry.Key != "fits" {
		t.Errorf("watch: got %+v", ev)
	}
	if info, _ := p.a.Info(t.Context()); info.Invalid != 2 || info.Settings != s {
		t.Errorf("info: got %+v, want two that are invalid", info)
	}
	if info, _ := p.b.Info(t.Context()); info.Invalid != 0 {
		t.Errorf("info of the other: got %+v", info)
	}
	if _, err := p.b.Delete(t.Context(), "text", nil); err != nil {
		t.Error(err)
	}
	p.run(2 * time.Minute)
	p.check("frozen, later", map[string]string{"fits": "12", "long": "1234"})
	if _, err := p.a.Put(t.Context(), "fits", []byte("1"), nil); !errors.Is(err, client.ErrFrozen) {
		t.Errorf("got %v", err)
	}
}

// While a keyspace is frozen no value is settled away.
func TestFrozenSettlesNothing(t *testing.T) {
	p := newPair(t)
	p.b.SetSettleAfter(time.Minute)
	p.run(2 * time.Second)
	p.cut()
	put(t, p.a, "k", "loser", nil)
	p.b.env.Clock.Observe(time.Now(), p.a.env.Clock.Last())
	put(t, p.b, "k", "winner", nil)
	if err := p.b.SetSettings(time.Now(), client.KeyspaceSettings{Frozen: true}); err != nil {
		t.Fatal(err)
	}
	p.link()
	p.run(3 * time.Minute)
	if got := len(p.a.index.all("k")); got != 2 {
		t.Errorf("frozen: %d cells, want 2", got)
	}
	if err := p.b.SetSettings(time.Now(), client.KeyspaceSettings{}); err != nil {
		t.Fatal(err)
	}
	p.run(3 * time.Minute)
	if got := len(p.a.index.all("k")); got != 1 {
		t.Errorf("thawed: %d cells, want 1", got)
	}
}

// What was there before is not counted, nor what is this node's own.
func TestJudgeOnlyWhatArrives(t *testing.T) {
	env := testEnv()
	old := &crdt.Cell{Key: "old", Dot: crdt.Dot{Inc: testInc + 1, Seq: 1}, Kind: crdt.KindRegister, Value: []byte("12345")}
	k := Open("ks", env, storage.KeyspaceState{Cells: []*crdt.Cell{old}}, time.Now())
	if err := k.SetSettings(time.Now(), client.KeyspaceSettings{MaxValue: 3}); err != nil {
		t.Fatal(err)
	}
	put(t, k, "own", "123", nil)
	other := *old
	other.Dot.Seq++
	if cells := k.toJudge([]*crdt.Cell{k.index.top("own"), &other}); len(cells) != 1 || cells[0] != &other {
		t.Errorf("to be judged: got %v", cells)
	}
	if info, _ := k.Info(t.Context()); info.Invalid != 0 {
		t.Errorf("got %+v", info)
	}
}
