package main

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/client"
)

// A listing is a keyspace that can only be listed.
type listing struct {
	client.Keyspace
	entries []client.Entry
	err     error // after the entries
}

func (l listing) List(context.Context, string, *client.ListOptions) iter.Seq2[client.Entry, error] {
	return func(yield func(client.Entry, error) bool) {
		for _, e := range l.entries {
			if !yield(e, nil) {
				return
			}
		}
		if l.err != nil {
			yield(client.Entry{}, l.err)
		}
	}
}

// TestDifferences compares the merge with a comparison of two maps.
func TestDifferences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := rapid.MapOf(rapid.SampledFrom([]string{"a", "aa", "b", "c", "d"}), rapid.Uint64Range(1, 2))
		left, right := state.Draw(t, "left"), state.Draw(t, "right")
		var want []difference
		for _, key := range []string{"a", "aa", "b", "c", "d"} {
			if left[key] != right[key] {
				want = append(want, difference{key, client.Version{Seq: left[key]}, client.Version{Seq: right[key]}})
			}
		}
		var got []difference
		for d, err := range differences(context.Background(), listingOf(left), listingOf(right)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, d)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func listingOf(state map[string]uint64) listing {
	var l listing
	for _, key := range sortedKeys(state) {
		l.entries = append(l.entries, client.Entry{Key: key, Version: client.Version{Seq: state[key]}})
	}
	return l
}

// A listing that breaks off must not look like missing keys.
func TestDifferencesReportsErrors(t *testing.T) {
	whole := listingOf(map[string]uint64{"a": 1, "b": 1, "c": 1})
	broken := listing{entries: whole.entries[:1], err: client.ErrUnavailable}
	for _, sides := range [][2]listing{{whole, broken}, {broken, whole}, {broken, broken}} {
		var errs []error
		for _, err := range differences(context.Background(), sides[0], sides[1]) {
			errs = append(errs, err)
		}
		if len(errs) == 0 || !errors.Is(errs[len(errs)-1], client.ErrUnavailable) || slices.ContainsFunc(errs[:len(errs)-1], func(e error) bool { return e == nil }) {
			t.Errorf("got %v, want only ErrUnavailable", errs)
		}
	}
}
