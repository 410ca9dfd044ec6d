package overlay

import (
	"errors"
	"maps"
	"testing"

	"github.com/meshkv/meshkv/client"
	"pgregory.net/rapid"
)

func decodeText(e client.Entry) (string, error) {
	if string(e.Value) == "bad" {
		return "", errors.New("bad")
	}
	return e.Key + "=" + string(e.Value), nil
}

func shows(v *View[string]) map[string]bool {
	m := map[string]bool{}
	for _, r := range v.Records() {
		m[r] = true
	}
	return m
}

func put(key, value string) client.Event {
	return client.Event{Type: client.EventPut, Entry: client.Entry{Key: key, Value: []byte(value)}}
}

func TestViewKeepsTheOldStateWhileASnapshotStreams(t *testing.T) {
	v := NewView(decodeText)
	if v.Synced() {
		t.Error("a new view is synced")
	}
	for _, ev := range []client.Event{put("a", "1"), put("b", "1"), {Type: client.EventSynced}, {Type: client.EventResync}, put("b", "2")} {
		v.Apply(ev)
	}
	if got, want := shows(v), map[string]bool{"a=1": true, "b=1": true}; !maps.Equal(got, want) {
		t.Errorf("inside the snapshot: %v, want %v", got, want)
	}
	if !v.Apply(client.Event{Type: client.EventSynced}) {
		t.Error("the end of the snapshot changed nothing")
	}
	if got, want := shows(v), map[string]bool{"b=2": true}; !maps.Equal(got, want) {
		t.Errorf("after the snapshot: %v, want %v", got, want)
	}
}

func TestViewIgnoresAndCountsBadRecords(t *testing.T) {
	v := NewView(decodeText)
	v.Apply(client.Event{Type: client.EventSynced})
	v.Apply(put("a", "1"))
	v.Apply(put("a", "bad"))
	if got := shows(v); len(got) != 0 || v.Ignored() != 1 {
		t.Errorf("a record that turned bad: shows %v, ignored %d, want none and 1", got, v.Ignored())
	}
	v.Apply(put("a", "2"))
	if got := shows(v); !got["a=2"] || v.Ignored() != 0 {
		t.Errorf("a record that is good again: shows %v, ignored %d, want a=2 and 0", got, v.Ignored())
	}
}

// A view shows what the watched map held at some moment: outside a snapshot,
// now; inside, when the snapshot began.
func TestViewFollowsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth := map[string]string{}
		v := NewView(decodeText)
		v.Apply(client.Event{Type: client.EventSynced})
		text := func() map[string]bool {
			m := map[string]bool{}
			for k, x := range truth {
				if x != "bad" {
					m[k+"="+x] = true
				}
			}
			return m
		}
		key := rapid.SampledFrom([]string{"a", "b", "c"})
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				k, x := key.Draw(t, "key"), rapid.SampledFrom([]string{"1", "2", "bad"}).Draw(t, "value")
				truth[k] = x
				v.Apply(put(k, x))
			case 2:
				k := key.Draw(t, "key")
				delete(truth, k)
				v.Apply(client.Event{Type: client.EventDelete, Entry: client.Entry{Key: k}})
			case 3:
				before := shows(v)
				if rapid.Bool().Draw(t, "by restart") {
					v.Restart()
				} else {
					v.Apply(client.Event{Type: client.EventResync})
				}
				truth = rapid.MapOf(key, rapid.SampledFrom([]string{"3", "bad"})).Draw(t, "snapshot")
				for k, x := range truth {
					changed := v.Apply(put(k, x))
					if got := shows(v); changed || !maps.Equal(got, before) {
						t.Fatalf("inside the snapshot: %v, want %v", got, before)
					}
				}
				v.Apply(client.Event{Type: client.EventSynced})
			}
			if got, want := shows(v), text(); !maps.Equal(got, want) {
				t.Fatalf("view %v, want %v", got, want)
			}
		}
	})
}
