package keyspace

import (
	"fmt"
	"testing"

	"github.com/meshkv/meshkv/client"
)

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
	if _, err := w.fill(); err != nil {
		t.Fatal(err)
	}
	if cap(w.buf) > 0 {
		t.Errorf("room for %d events, and there is none", cap(w.buf))
	}
}
