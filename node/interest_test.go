package node

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestKeyspaceID(t *testing.T) {
	for _, c := range []struct {
		text string
		id   keyspaceID
		ok   bool
	}{
		{"a", keyspaceID{"a", 0}, true},
		{"a#1", keyspaceID{"a", 1}, true},
		{"_members", keyspaceID{"_members", 0}, true},
		{"a#0", keyspaceID{}, false},
		{"a#01", keyspaceID{}, false},
		{"a#", keyspaceID{}, false},
		{"a#1#2", keyspaceID{}, false},
		{"_other", keyspaceID{}, false},
		{"", keyspaceID{}, false},
		{strings.Repeat("a", 64), keyspaceID{}, false},
	} {
		id, err := parseKeyspaceID(c.text)
		if (err == nil) != c.ok || c.ok && (id != c.id || id.String() != c.text) {
			t.Errorf("%q: got %+v, %v", c.text, id, err)
		}
	}
}

func TestInterest(t *testing.T) {
	for name, i := range map[string]interest{
		"none": {Held: map[keyspaceID]uint64{}},
		"some": {Held: map[keyspaceID]uint64{{"a", 0}: 3, {"b", 7}: 1 << 40}, Named: []string{"a", "c"}},
		"all":  {All: true, Held: map[keyspaceID]uint64{{"a", 2}: 1}, Without: []string{"x", "y"}},
	} {
		frame := appendInterest(nil, i)
		if got, err := parseInterest(frame[2:]); err != nil || !reflect.DeepEqual(got, i) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		for n := 2; n < len(frame); n++ {
			if _, err := parseInterest(frame[2:n]); !errors.Is(err, errFrame) {
				t.Errorf("%s cut to %d bytes: %v", name, n, err)
			}
		}
	}
}

func TestInterestEpoch(t *testing.T) {
	all := &interest{All: true, Held: map[keyspaceID]uint64{{"a", 1}: 5}, Without: []string{"x"}}
	for _, c := range []struct {
		i     *interest
		id    keyspaceID
		epoch uint64
		holds bool
	}{
		{nil, keyspaceID{"a", 0}, 0, false},
		{nil, keyspaceID{"_members", 0}, 0, true},
		{all, keyspaceID{"a", 1}, 5, true},
		{all, keyspaceID{"a", 0}, 0, false}, // it holds a later life
		{all, keyspaceID{"new", 0}, 0, true},
		{all, keyspaceID{"x", 0}, 0, false},
		{&interest{}, keyspaceID{"a", 0}, 0, false},
	} {
		if epoch, holds := c.i.epoch(c.id); epoch != c.epoch || holds != c.holds {
			t.Errorf("%+v, %v: got %d, %v", c.i, c.id, epoch, holds)
		}
	}
}

func FuzzInterest(f *testing.F) {
	f.Add(appendInterest(nil, interest{All: true, Held: map[keyspaceID]uint64{{"a", 2}: 1}, Without: []string{"x"}})[2:])
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := parseInterest(b)
		if err != nil {
			return
		}
		again, err := parseInterest(appendInterest(nil, i)[2:])
		if err != nil || !reflect.DeepEqual(i, again) {
			t.Errorf("%+v became %+v, %v", i, again, err)
		}
	})
}

// Of two entries written without knowing each other, the later life counts,
// whatever the order in which they are read.
func TestLifeMerge(t *testing.T) {
	for _, c := range []struct{ a, b, want life }{
		{life{Generation: 0}, life{Generation: 1, Removed: true}, life{Generation: 1, Removed: true}},
		{life{Generation: 1}, life{Generation: 1, Removed: true}, life{Generation: 1}},
		{life{Generation: 2, Removed: true}, life{Generation: 1}, life{Generation: 2, Removed: true}},
	} {
		if ab, ba := c.a.merge(c.b), c.b.merge(c.a); ab != c.want || ba != c.want {
			t.Errorf("%+v and %+v: got %+v and %+v", c.a, c.b, ab, ba)
		}
	}
}
