package logstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/storage"
	"pgregory.net/rapid"
)

// A modelGroup is what a group holds, as plainly as can be.
type modelGroup struct {
	logs   map[uint64]raft.Log
	stable map[string]string
}

func (m modelGroup) clone() modelGroup { return modelGroup{maps.Clone(m.logs), maps.Clone(m.stable)} }

func (m modelGroup) ends() (first, last uint64) {
	indexes := slices.Sorted(maps.Keys(m.logs))
	if len(indexes) == 0 {
		return 0, 0
	}
	return indexes[0], indexes[len(indexes)-1]
}

func (m modelGroup) compare(g logstore.Log) error {
	first, err1 := g.FirstIndex()
	last, err2 := g.LastIndex()
	wantFirst, wantLast := m.ends()
	if err := errors.Join(err1, err2); err != nil || first != wantFirst || last != wantLast {
		return fmt.Errorf("got entries %d to %d, %w, want %d to %d", first, last, err, wantFirst, wantLast)
	}
	for index := range wantLast + 3 {
		var got raft.Log
		err := g.GetLog(index, &got)
		want, held := m.logs[index]
		switch {
		case held && (err != nil || got.Index != index || got.Term != want.Term || string(got.Data) != string(want.Data)):
			return fmt.Errorf("entry %d: got %+v, %w, want %+v", index, got, err, want)
		case !held && !errors.Is(err, raft.ErrLogNotFound):
			return fmt.Errorf("entry %d: got %w, want ErrLogNotFound", index, err)
		}
	}
	for _, key := range []string{"a", "b"} {
		got, err := g.Get([]byte(key))
		if err != nil && err.Error() == "not found" { // so says raft-boltdb, and Raft knows it
			err = nil
		}
		if err != nil || string(got) != m.stable[key] {
			return fmt.Errorf("value %q: got %q, %w, want %q", key, got, err, m.stable[key])
		}
	}
	return nil
}

// A model is an engine and what it should hold.
type model struct {
	engine logstore.Engine
	strict bool // it refuses gaps and holes
	groups map[string]modelGroup
}

var modelNames = []string{"a", "b", "group"}

func (m *model) draw(t *rapid.T) (logstore.Log, modelGroup) {
	name := rapid.SampledFrom(modelNames).Draw(t, "group")
	g, err := m.engine.Group(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := m.groups[name]; !ok {
		m.groups[name] = modelGroup{map[uint64]raft.Log{}, map[string]string{}}
	}
	return g, m.groups[name]
}

func (m *model) append(t *rapid.T) {
	g, mg := m.draw(t)
	_, last := mg.ends()
	from := rapid.Uint64Range(last, last+2).Draw(t, "from")
	allowed := from == last+1 || last == 0 && from > 0
	if !allowed && !m.strict {
		return
	}
	var logs []*raft.Log
	data := rapid.SampledFrom([]int{0, 1, 60, 300}).Draw(t, "length")
	for i := range rapid.Uint64Range(1, 5).Draw(t, "n") {
		b := bytes.Repeat([]byte(fmt.Sprint("entry ", from+i, " ")), data)
		logs = append(logs, &raft.Log{Index: from + i, Term: rapid.Uint64Range(1, 3).Draw(t, "term"), Data: b})
	}
	err := g.StoreLogs(logs)
	if allowed != (err == nil) || err != nil && !errors.Is(err, storage.ErrInvalid) {
		t.Fatalf("append at %d after %d: %v", from, last, err)
	}
	if allowed {
		for _, l := range logs {
			mg.logs[l.Index] = *l
		}
	}
}

func (m *model) delete(t *rapid.T) {
	g, mg := m.draw(t)
	first, last := mg.ends()
	from := rapid.Uint64Range(0, last+1).Draw(t, "from")
	to := rapid.Uint64Range(0, last+1).Draw(t, "to")
	some := max(from, first) <= min(to, last) && last != 0
	allowed := !some || from <= first || to >= last
	if !m.strict && (!some || !allowed) {
		return
	}
	err := g.DeleteRange(from, to)
	if allowed != (err == nil) || err != nil && !errors.Is(err, storage.ErrInvalid) {
		t.Fatalf("delete %d to %d of %d to %d: %v", from, to, first, last, err)
	}
	if allowed {
		maps.DeleteFunc(mg.logs, func(i uint64, _ raft.Log) bool { return from <= i && i <= to })
	}
}

func (m *model) set(t *rapid.T) {
	g, mg := m.draw(t)
	key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
	mg.stable[key] = rapid.SampledFrom([]string{"", "1", "22"}).Draw(t, "value")
	if err := g.Set([]byte(key), []byte(mg.stable[key])); err != nil {
		t.Fatal(err)
	}
}

func (m *model) remove(t *rapid.T) {
	name := rapid.SampledFrom(modelNames).Draw(t, "group")
	if err := m.engine.Remove(context.Background(), name); err != nil {
		t.Fatal(err)
	}
	delete(m.groups, name)
}

// compare fails unless e holds groups.
func compare(e logstore.Engine, groups map[string]modelGroup) error {
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g, err := e.Group(name)
		if err == nil {
			err = groups[name].compare(g)
		}
		if err != nil {
			return fmt.Errorf("group %q: %w", name, err)
		}
	}
	return nil
}

// opener opens a kind of engine in a directory.
type opener func(dir string) (logstore.Engine, error)

func openers() map[string]opener {
	byKind := func(k logstore.Kind, o logstore.Options, segment int64) opener {
		return func(dir string) (logstore.Engine, error) {
			return logstore.OpenEngine(k, dir, logstore.InSegmentsOf(o, segment))
		}
	}
	few := logstore.Options{CacheEntries: 2, CacheBytes: 100}
	return map[string]opener{
		"journal":                byKind(logstore.Journal, few, 64<<10),
		"journal, tiny segments": byKind(logstore.Journal, few, 8<<10),
		"boltdb":                 byKind(logstore.BoltDB, few, 0),
	}
}

// An engine does what maps do, whatever is called in whatever order, with
// reopening, with a cache that holds nearly nothing, and while segments come and
// go.
func TestEnginesLikeAModel(t *testing.T) {
	for name, openIn := range openers() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				dir := newDir(t)
				m := &model{strict: name != "boltdb", groups: map[string]modelGroup{}}
				reopen := func(t *rapid.T) {
					if m.engine != nil {
						if err := m.engine.Close(); err != nil {
							t.Fatal(err)
						}
					}
					e, err := openIn(dir)
					if err != nil {
						t.Fatal(err)
					}
					m.engine = e
				}
				reopen(t)
				defer func() { _ = m.engine.Close() }()
				t.Repeat(map[string]func(*rapid.T){
					"append": m.append, "append more": m.append, "delete": m.delete, "set": m.set, "remove": m.remove, "reopen": reopen,
					"": func(t *rapid.T) {
						if err := compare(m.engine, m.groups); err != nil {
							t.Fatal(err)
						}
					},
				})
			})
		})
	}
}
