package keyspace

import (
	"fmt"
	"testing"

	"github.com/meshkv/meshkv/client"
)

// A cursor of a keyspace that was dropped and opened again in the same process says
// nothing about the changes of the new one, however many it has.
func TestCursorOfAnEarlierLife(t *testing.T) {
	env := testEnv()
	first := openEmpty(env)
	put(t, first, "gone", "v", nil)
	w, err := first.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cursor := next(t, w).Cursor
	if err := first.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := openEmpty(env)
	put(t, second, "a", "v", nil)
	put(t, second, "b", "v", nil)
	again, err := second.Watch(t.Context(), "", &client.WatchOptions{From: cursor})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if ev := next(t, again); ev.Type != client.EventResync {
		t.Errorf("got %+v, want a resync", ev)
	}
}

// A watch makes no room for changes that are not its own: there may be thousands of
// watches, each of a few keys, and each looks at all changes.
func TestWatchOfOthersChangesHoldsNothing(t *testing.T) {
	k := openEmpty(testEnv())
	cw, err := k.Watch(t.Context(), "mine/", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer cw.Close()
	next(t, cw)
	w := cw.(*watch)
	w.at, w.buf = 0, nil
	for i := range watchBuffer {
		put(t, k, fmt.Sprint("others/", i), "v", nil)
	}
	if wait := w.fill(); !wait || cap(w.buf) > 0 {
		t.Errorf("room for %d events, and there is none", cap(w.buf))
	}
}
