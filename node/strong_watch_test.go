package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
)

// A cutWatch gives some events, and then its replica is gone.
type cutWatch struct{ events []client.Event }

func (w *cutWatch) Next(context.Context) (client.Event, error) {
	if len(w.events) == 0 {
		return client.Event{}, fmt.Errorf("%w: the replica is gone", client.ErrUnavailable)
	}
	ev := w.events[0]
	w.events = w.events[1:]
	return ev, nil
}

func (w *cutWatch) Close() error { return nil }

// A strongWatch that is cut off goes on where it was: nothing twice, nothing left out, and where it cannot
// know, it says that it begins anew.
func TestStrongWatchGoesOn(t *testing.T) {
	put := func(key string, more bool, cursor client.Cursor) client.Event {
		return client.Event{Type: client.EventPut, Entry: client.Entry{Key: key}, More: more, Cursor: cursor}
	}
	synced := client.Event{Type: client.EventSynced, Cursor: "1"}
	txn := []client.Event{put("a", true, "1"), put("b", true, "1"), put("c", true, "1"), put("d", false, "2")}
	for _, tt := range []struct {
		name string
		opts client.WatchOptions
		// legs are the events of one watch after the other; from is what each but the first is asked for.
		legs [][]client.Event
		from []client.WatchOptions
		want string
	}{
		{
			name: "cut twice within a transaction", legs: [][]client.Event{append([]client.Event{synced}, txn[:3]...), txn[:1], txn},
			from: []client.WatchOptions{{From: "1"}, {From: "1"}}, want: "synced a b c d",
		},
		{
			name: "between transactions", legs: [][]client.Event{append([]client.Event{synced}, txn...), {put("e", false, "3")}},
			from: []client.WatchOptions{{From: "2"}}, want: "synced a b c d e",
		},
		{
			name: "within the snapshot", legs: [][]client.Event{{put("a", false, "")}, {put("a", false, ""), put("b", false, ""), synced}},
			from: []client.WatchOptions{{}}, want: "a resync a b synced",
		},
		{
			name: "before the first event", opts: client.WatchOptions{UpdatesOnly: true}, legs: [][]client.Event{{}, {put("a", false, ""), synced}},
			from: []client.WatchOptions{{}}, want: "resync a synced",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leg := 0
			open := func(_ context.Context, o *client.WatchOptions) (client.Watch, error) {
				if leg == len(tt.legs) {
					return nil, client.ErrNotFound
				}
				if leg > 0 && *o != tt.from[leg-1] {
					t.Errorf("leg %d is asked for with %+v, want %+v", leg, *o, tt.from[leg-1])
				}
				leg++
				return &cutWatch{append([]client.Event(nil), tt.legs[leg-1]...)}, nil
			}
			w, err := newStrongWatch(t.Context(), open, &tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for {
				ev, err := w.Next(t.Context())
				if errors.Is(err, client.ErrNotFound) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if ev.Type == client.EventPut {
					got = append(got, ev.Entry.Key)
				} else {
					got = append(got, string(ev.Type))
				}
			}
			if shown := strings.Join(got, " "); shown != tt.want {
				t.Errorf("shown: %s; want: %s", shown, tt.want)
			}
		})
	}
}
