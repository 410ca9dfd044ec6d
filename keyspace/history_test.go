package keyspace

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
)

// told is a history in short: type, origin, value, what was removed by the value that it
// had, and whether it was shown. Newest first.
func told(t *testing.T, k *Keyspace, key string, o *client.HistoryOptions) (lines []string, h client.History) {
	t.Helper()
	h, err := k.History(t.Context(), key, o)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[client.Version]string)
	for _, e := range h.Events {
		if e.Type == client.HistoryPut {
			values[e.Version] = string(e.Value)
		}
	}
	for i, e := range h.Events {
		line := fmt.Sprintf("%s by %q", e.Type, e.Origin)
		if e.Value != nil {
			line += " " + string(e.Value)
		}
		for _, v := range e.Removes {
			line += " -" + values[v]
		}
		if e.Shown {
			line += " shown"
		}
		lines = append(lines, line)
		if next := h.Events[min(i+1, len(h.Events)-1)]; next.Arrived.After(e.Arrived) {
			t.Errorf("event %d arrived before the next one: %+v, %+v", i, e, next)
		}
		if !e.Arrived.IsZero() && e.Arrived.Before(h.Since) && h.OpsSince.IsZero() {
			t.Errorf("event %d is older than %v: %+v", i, h.Since, e)
		}
	}
	return lines, h
}

func wantTold(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got\n\t%s\nwant\n\t%s", when, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// Without peers there is only what the key showed: who deleted is not kept.
func TestHistoryAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := openEmpty(testEnv())
		opened := time.Now()
		time.Sleep(time.Second)
		put(t, k, "k", "one", nil)
		put(t, k, "other", "x", nil)
		time.Sleep(time.Second)
		put(t, k, "k", "two", nil)
		if _, err := k.Delete(t.Context(), "k", nil); err != nil {
			t.Fatal(err)
		}
		put(t, k, "k", "three", &client.PutOptions{TTL: time.Second})
		time.Sleep(2 * time.Second)
		k.Tick(time.Now())
		lines, h := told(t, k, "k", nil)
		wantTold(t, "alone", lines, `expired by "n1"`, `put by "n1" three shown`, `delete by "" -two`, `put by "n1" two -one shown`, `put by "n1" one shown`)
		if !h.Since.Equal(opened) || !h.OpsSince.IsZero() || h.More || h.Node != "n1" || h.Keyspace != "ks" || h.Key != "k" {
			t.Errorf("got %+v", h)
		}
		if first := h.Events[4]; !first.Arrived.Equal(opened.Add(time.Second)) || first.Lag() != 0 {
			t.Errorf("got %+v", first)
		}
		lines, h = told(t, k, "k", &client.HistoryOptions{Limit: 2})
		if len(lines) != 2 || !h.More || h.Events[1].Type != client.HistoryPut {
			t.Errorf("two of them: got %+v", h)
		}
		if lines, h = told(t, k, "never", nil); len(lines) != 0 || h.More {
			t.Errorf("of a key that never was: got %+v", h)
		}
	})
}

// What is there from before is known, though not when it came.
func TestHistoryOfStored(t *testing.T) {
	env := testEnv()
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	cell := func(seq uint64, value string) *crdt.Cell {
		return &crdt.Cell{Key: "k", Dot: crdt.Dot{Inc: testInc, Seq: seq}, Kind: crdt.KindRegister, HLC: crdt.HLC(uint64(at.UnixMilli())<<16 + seq), Value: []byte(value)}
	}
	k := Open("ks", env, storage.KeyspaceState{Cells: []*crdt.Cell{cell(1, "older"), cell(2, "newer")}}, time.Now())
	lines, h := told(t, k, "k", nil)
	wantTold(t, "stored", lines, `put by "n1" newer shown`, `put by "n1" older`)
	if e := h.Events[0]; !e.Arrived.IsZero() || !e.Modified.Equal(at) || e.Lag() != 0 {
		t.Errorf("got %+v", e)
	}
}

// live lets the pair live on the test's own clock.
func (p *pair) live(d time.Duration) {
	p.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		p.now = time.Now()
		p.run(100 * time.Millisecond)
	}
	p.now = time.Now()
}

// conflict puts two values that do not know of each other; the one from b is newer.
func conflict(t *testing.T) *pair {
	p := newPair(t)
	p.live(time.Second)
	p.cut()
	put(t, p.a, "k", "from a", nil)
	time.Sleep(10 * time.Millisecond)
	put(t, p.b, "k", "from b", nil)
	p.link()
	p.live(3 * time.Second)
	p.check("merged", map[string]string{"k": "from b"})
	return p
}

// Concurrent values, a put that resolves them, and a delete: with the ops at hand all of it
// is told, on both nodes, and by whom. A minute later it is what the keys showed.
func TestHistoryOfConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := conflict(t)
		lines, _ := told(t, p.a, "k", nil)
		wantTold(t, "conflict at a", lines, `put by "b" from b shown`, `put by "a" from a shown`)
		lines, _ = told(t, p.b, "k", nil) // it came by a session, and was never shown
		wantTold(t, "conflict at b", lines, `put by "b" from b shown`, `put by "a" from a`)

		put(t, p.a, "k", "resolved", nil)
		p.now = p.now.Add(20 * time.Millisecond)
		time.Sleep(20 * time.Millisecond)
		p.live(time.Second)
		lines, h := told(t, p.b, "k", nil)
		wantTold(t, "resolved at b", lines[:1], `put by "a" resolved - -from b shown`)
		if e := h.Events[0]; len(e.Removes) != 2 || e.Lag() != 20*time.Millisecond {
			t.Errorf("resolved at b: got %+v, lag %v", e, e.Lag())
		}
		if _, err := p.b.Delete(t.Context(), "k", nil); err != nil {
			t.Fatal(err)
		}
		p.live(time.Second)
		for _, k := range []*Keyspace{p.a, p.b} {
			lines, h := told(t, k, "k", nil)
			wantTold(t, "deleted, at "+k.env.Name, lines[:1], `delete by "b" -resolved`)
			if e := h.Events[0]; e.Version.IsZero() || h.OpsSince.IsZero() {
				t.Errorf("deleted, at %s: got %+v", k.env.Name, h)
			}
		}
		p.live(2 * time.Minute)
		lines, h = told(t, p.a, "k", nil)
		wantTold(t, "later", lines, `delete by "" -resolved`, `put by "a" resolved -from b shown`, `put by "b" from b shown`, `put by "a" from a shown`)
		if !h.OpsSince.IsZero() {
			t.Errorf("later: got %+v", h)
		}
	})
}

// A value that a newer one hid is shown again when that is removed alone.
func TestHistoryReappears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := conflict(t)
		dot := p.b.index.top("k").Dot
		p.b.drive(p.now, func() { p.b.remove(p.now, []crdt.Dot{dot}) }) // as a collection does
		p.live(time.Second)
		p.check("removed", map[string]string{"k": "from a"})
		lines, _ := told(t, p.a, "k", nil)
		wantTold(t, "at a", lines, `reappeared by "a" from a shown`, `removed by "b" -from b`, `put by "b" from b shown`, `put by "a" from a shown`)
		p.live(2 * time.Minute)
		lines, _ = told(t, p.a, "k", nil)
		wantTold(t, "at a, later", lines, `reappeared by "a" from a -from b shown`, `put by "b" from b shown`, `put by "a" from a shown`)
	})
}

// What expired is collected with an op of several keys; each key tells of its own.
func TestHistoryOfCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.live(time.Second)
		for _, key := range []string{"k", "other", "third"} {
			put(t, p.a, key, "short "+key, &client.PutOptions{TTL: time.Second})
		}
		p.live(collectAfter + 10*time.Second)
		if n := p.b.index.Len(); n != 0 {
			t.Fatalf("%d cells are left", n)
		}
		for _, k := range []*Keyspace{p.a, p.b} {
			lines, h := told(t, k, "k", nil)
			wantTold(t, "at "+k.env.Name, lines, `removed by "a" -short k`, `expired by "a"`, `put by "a" short k shown`)
			if h.Events[1].Version != h.Events[2].Version {
				t.Errorf("expired: got %+v", h.Events[1])
			}
		}
		if lines, _ := told(t, p.b, "never", nil); len(lines) != 0 {
			t.Errorf("of a key that never was: got %q", lines)
		}
	})
}

// Of a batch, a key tells what concerns it, and nothing of the other keys.
func TestHistoryOfBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.live(time.Second)
		put(t, p.a, "k", "one", nil)
		put(t, p.a, "gone", "g", nil)
		p.live(time.Second)
		_, err := p.a.Update(t.Context(), []client.Change{
			{Verb: client.VerbPut, Key: "other", Value: []byte("x")},
			{Verb: client.VerbPut, Key: "k", Value: []byte("two")},
			{Verb: client.VerbDelete, Key: "gone"},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.live(time.Second)
		for _, k := range []*Keyspace{p.a, p.b} {
			lines, _ := told(t, k, "k", nil)
			wantTold(t, "k at "+k.env.Name, lines, `put by "a" two -one shown`, `put by "a" one shown`)
			lines, _ = told(t, k, "gone", nil)
			wantTold(t, "gone at "+k.env.Name, lines, `delete by "a" -g`, `put by "a" g shown`)
			lines, _ = told(t, k, "other", nil)
			wantTold(t, "other at "+k.env.Name, lines, `put by "a" x shown`)
			if lines, _ = told(t, k, "never", nil); len(lines) != 0 {
				t.Errorf("never at %s: got %q", k.env.Name, lines)
			}
		}
	})
}

// A log that has dropped its beginning says since when it knows, and other keys do not
// matter.
func TestHistoryOfFullLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := openEmpty(testEnv())
		opened := time.Now()
		put(t, k, "k", "forgotten", nil)
		put(t, k, "k", "there", nil)
		time.Sleep(time.Hour)
		for i := range maxLogChanges - 1 {
			put(t, k, fmt.Sprintf("other%d", i%1000), "", nil)
		}
		lines, h := told(t, k, "k", nil)
		wantTold(t, "at the brink", lines, `put by "n1" there - shown`)
		if !h.Since.Equal(opened) {
			t.Errorf("since %v, want %v", h.Since, opened)
		}
		put(t, k, "other", "", nil)
		lines, h = told(t, k, "k", nil)
		wantTold(t, "beyond", lines, `put by "n1" there shown`)
		if !h.Since.Equal(opened.Add(time.Hour)) || !h.Events[0].Arrived.IsZero() {
			t.Errorf("since %v, want an hour after %v; %+v", h.Since, opened, h.Events)
		}
	})
}

func TestHistoryBounds(t *testing.T) {
	k := openEmpty(testEnv())
	for range 12 {
		put(t, k, "k", strings.Repeat("v", 60_000), nil)
	}
	_, h := told(t, k, "k", nil)
	values := 0
	for i, e := range h.Events {
		if (e.Value != nil) != (i < 4) || e.Bytes != 60_000 {
			t.Errorf("event %d: %d bytes, value of %d", i, e.Bytes, len(e.Value))
		}
		values += len(e.Value)
	}
	if len(h.Events) != 12 || values > historyValues {
		t.Errorf("%d events with %d bytes", len(h.Events), values)
	}
	if _, err := k.History(t.Context(), "", nil); err == nil {
		t.Error("the history of no key")
	}
	if _, err := k.History(t.Context(), "k", &client.HistoryOptions{Limit: -1}); err == nil {
		t.Error("a negative limit")
	}
}

// A history of a key that has none, with a full change log: all of it is looked at.
func BenchmarkHistoryOfFullLog(b *testing.B) {
	k := openEmpty(testEnv())
	for i := range maxLogChanges {
		if _, err := k.Put(b.Context(), fmt.Sprintf("other%d", i%10_000), []byte("v"), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.History(b.Context(), "k", nil); err != nil {
			b.Fatal(err)
		}
	}
}
