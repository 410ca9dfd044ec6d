package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// listWatch gives the events of a list, and then io.EOF.
type listWatch struct{ events []Event }

func (w *listWatch) Next(context.Context) (Event, error) {
	if len(w.events) == 0 {
		return Event{}, io.EOF
	}
	ev := w.events[0]
	w.events = w.events[1:]
	return ev, nil
}

func (w *listWatch) Close() error { return nil }

// A filter shows what is wanted in its order, the events of one transaction together, and
// after each transaction of which it shows something the cursor of its end.
func TestFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := WatchOptions{Only: EventSet(rapid.IntRange(0, 15).Draw(t, "only")), NotMine: rapid.Bool().Draw(t, "not mine")}
		var all, want []Event
		for r := range rapid.IntRange(0, 5).Draw(t, "transactions") {
			n := rapid.IntRange(1, 4).Draw(t, "size")
			begin := len(want)
			for i := range n {
				ev := Event{Type: EventPut, Entry: Entry{Key: fmt.Sprint(r, i)}, Cursor: Cursor(fmt.Sprint(r)), More: i < n-1, Mine: rapid.Bool().Draw(t, "mine")}
				if ev.Cursor = Cursor(fmt.Sprint(r)); !ev.More {
					ev.Cursor = Cursor(fmt.Sprint(r + 1))
				}
				is := OnPut
				if rapid.Bool().Draw(t, "delete") {
					ev.Type = EventDelete
					ev.Reason = rapid.SampledFrom([]Reason{ReasonDeleted, ReasonExpired, ReasonOwnerFailed, ""}).Draw(t, "reason")
					is = map[Reason]EventSet{ReasonDeleted: OnDeleted, ReasonExpired: OnExpired, ReasonOwnerFailed: OnOwnerFailed, "": OnDeleted | OnOwnerFailed}[ev.Reason]
				}
				all = append(all, ev)
				if (o.Only == 0 || o.Only&is != 0) && !(o.NotMine && ev.Mine) {
					want = append(want, ev)
				}
			}
			if len(want) > begin {
				last := &want[len(want)-1]
				last.More, last.Cursor = false, Cursor(fmt.Sprint(r+1))
			}
			if rapid.IntRange(0, 3).Draw(t, "synced") == 0 {
				all = append(all, Event{Type: EventSynced})
				want = append(want, Event{Type: EventSynced})
			}
		}
		w := Filter(&listWatch{all}, &o)
		var got []Event
		for {
			ev, err := w.Next(t.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			got = append(got, ev)
		}
		if !slices.EqualFunc(got, want, func(a, b Event) bool {
			return a.Type == b.Type && a.Entry.Key == b.Entry.Key && a.Cursor == b.Cursor && a.More == b.More
		}) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

func TestParseEventSet(t *testing.T) {
	for text, want := range map[string]EventSet{
		"": 0, "put": OnPut, "deleted": OnDeleted, "expired,owner-failed": OnExpired | OnOwnerFailed, "put,put": OnPut,
	} {
		if got, err := ParseEventSet(text); got != want || err != nil {
			t.Errorf("%q: got %b, %v; want %b", text, got, err, want)
		}
	}
	for _, text := range []string{",", "delete", "put, deleted", "PUT"} {
		if _, err := ParseEventSet(text); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
