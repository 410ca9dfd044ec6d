package client

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// modelNode is a node as a watch sees it: a map, and every change ever.
type modelNode struct {
	inc     int // of the node's process: another one knows no older cursors
	entries map[string]Entry
	log     []Event
	seq     uint64
}

func (n *modelNode) write(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
	n.seq++
	prev, had := n.entries[key]
	ev := Event{Type: EventPut, Entry: Entry{Key: key, Version: Version{1, n.seq}}}
	if had {
		ev.Prev = &prev
	}
	if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
		if !had {
			return
		}
		delete(n.entries, key)
		ev.Type, ev.Entry, ev.Reason = EventDelete, Entry{Key: key}, ReasonDeleted
	} else {
		n.entries[key] = ev.Entry
	}
	n.log = append(n.log, ev)
}

// modelStream is one watch at the node, the events of its snapshot read one by
// one while others write.
type modelStream struct {
	n     *modelNode
	inc   int
	keys  []string // of the snapshot, not read yet
	phase viewPhase
	at    int // changes seen
	read  map[string]bool
}

func (n *modelNode) cursor(at int) Cursor { return Cursor(fmt.Sprintf("%d-%d", n.inc, at)) }

func (n *modelNode) open(o WatchOptions) (*modelStream, []Event) {
	s := &modelStream{n: n, inc: n.inc, at: len(n.log)}
	if o.From != "" {
		var inc int
		fmt.Sscanf(string(o.From), "%d-%d", &inc, &s.at)
		if inc == n.inc {
			return s, nil
		}
		s.snapshot()
		return s, []Event{{Type: EventResync}}
	}
	if o.UpdatesOnly {
		return s, []Event{{Type: EventSynced, Cursor: n.cursor(s.at)}}
	}
	s.snapshot()
	return s, nil
}

func (s *modelStream) snapshot() {
	s.phase, s.at = phaseSnapshot, len(s.n.log)
	s.keys = slices.Sorted(maps.Keys(s.n.entries))
	s.read = make(map[string]bool)
}

// next is the next event, if there is one: a snapshot reads each key when it
// comes to it, and tells the changes of those that it has read.
func (s *modelStream) next() (Event, bool) {
	for s.at < len(s.n.log) {
		ev := s.n.log[s.at]
		s.at++
		if s.phase == phaseLive {
			ev.Cursor = s.n.cursor(s.at)
			return ev, true
		}
		ev.Cursor = s.n.cursor(s.at) // of no use, but a node may give one
		if s.read[ev.Entry.Key] || !slices.Contains(s.keys, ev.Entry.Key) {
			s.read[ev.Entry.Key] = true
			return ev, true
		}
	}
	if s.phase == phaseLive {
		return Event{}, false
	}
	for len(s.keys) > 0 {
		key := s.keys[0]
		s.keys = s.keys[1:]
		s.read[key] = true
		if e, ok := s.n.entries[key]; ok {
			return Event{Type: EventPut, Entry: e, Cursor: s.n.cursor(s.at)}, true
		}
	}
	s.phase = phaseLive
	return Event{Type: EventSynced, Cursor: s.n.cursor(s.at)}, true
}

// TestViewTransactions: the events of a transaction are shown together and once, wherever
// the connection breaks, to a reader of everything and to one that began in the middle.
func TestViewTransactions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o WatchOptions
		if rapid.Bool().Draw(t, "from") {
			o = WatchOptions{From: "1", Exact: true}
		}
		// Revision r+2 puts sizes[r] keys.
		sizes := rapid.SliceOfN(rapid.IntRange(1, 4), 1, 6).Draw(t, "sizes")
		var log []Event
		for r, n := range sizes {
			for i := range n {
				ev := Event{Type: EventPut, Entry: Entry{Key: fmt.Sprint(i), Version: Version{Seq: uint64(r + 2)}}, Cursor: Cursor(fmt.Sprint(r + 2))}
				if ev.More = i < n-1; ev.More {
					ev.Cursor = Cursor(fmt.Sprint(r + 1))
				}
				log = append(log, ev)
			}
		}
		v := newView(o)
		var shown []Event
		at := 0 // in the log
		open := func() {
			opts, out := v.reopen(nil)
			v.accepted()
			shown = append(shown, out...)
			if opts.From == "" { // an empty keyspace, at revision 1
				shown = append(shown, v.step(Event{Type: EventSynced, Cursor: "1"}, nil)...)
				opts.From = "1"
			} else if opts.Exact != o.Exact {
				t.Fatalf("reopened with %+v", opts)
			}
			var revision int
			fmt.Sscan(string(opts.From), &revision)
			at = 0
			for _, n := range sizes[:revision-1] {
				at += n
			}
		}
		open()
		breaks := rapid.IntRange(0, 5).Draw(t, "breaks")
		for at < len(log) {
			if breaks > 0 && rapid.Bool().Draw(t, "break") {
				breaks--
				open()
				continue
			}
			if rapid.Bool().Draw(t, "heartbeat") {
				shown = append(shown, v.step(Event{Type: EventHeartbeat}, nil)...)
			}
			before := len(shown)
			shown = v.step(log[at], shown)
			if log[at].More && len(shown) > before {
				t.Fatal("a transaction was shown before its end")
			}
			at++
		}
		shown = slices.DeleteFunc(shown, func(ev Event) bool { return ev.Type == EventSynced })
		if !slices.EqualFunc(shown, log, func(a, b Event) bool {
			return a.Entry.Key == b.Entry.Key && a.Entry.Version == b.Entry.Version && a.Cursor == b.Cursor && a.More == b.More
		}) {
			t.Fatalf("got %+v, want %+v", shown, log)
		}
	})
}

// TestF9ViewHasNoGaps: whatever breaks when, a reader that applies the events
// holds what the node holds, is told nothing twice, and can resume elsewhere
// after any event with a cursor.
func TestF9ViewHasNoGaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := &modelNode{inc: 1, entries: make(map[string]Entry)}
		for range rapid.IntRange(0, 4).Draw(t, "before") {
			n.write(t)
		}
		var o WatchOptions
		switch rapid.IntRange(0, 2).Draw(t, "mode") {
		case 1:
			o.UpdatesOnly = true
		case 2:
			o.From = n.cursor(rapid.IntRange(0, len(n.log)).Draw(t, "from"))
		}
		v := newView(o)
		var s *modelStream
		shown := make(map[string]Version) // by the events
		synced := o.From != ""            // told, or not to be told
		if o.From != "" {                 // the reader holds what there was at the cursor
			var inc, at int
			fmt.Sscanf(string(o.From), "%d-%d", &inc, &at)
			for _, ev := range n.log[:at] {
				apply(shown, ev)
			}
		}
		if o.UpdatesOnly {
			for key, e := range n.entries { // read by other means before
				shown[key] = e.Version
			}
		}
		deliver := func(events []Event) {
			for _, ev := range events {
				if ev.Type == EventPut && shown[ev.Entry.Key] == ev.Entry.Version {
					t.Fatalf("put of %s with version %v twice", ev.Entry.Key, ev.Entry.Version)
				}
				if _, ok := shown[ev.Entry.Key]; ev.Type == EventDelete && !ok {
					t.Fatalf("delete of %s, which was not there", ev.Entry.Key)
				}
				if ev.Prev != nil && ev.Prev.Version != shown[ev.Entry.Key] {
					t.Fatalf("%s of %s: prev %v, shown %v", ev.Type, ev.Entry.Key, ev.Prev.Version, shown[ev.Entry.Key])
				}
				apply(shown, ev)
				switch ev.Type {
				case EventSynced:
					synced = true
				case EventResync:
					synced = false
				}
				var inc, at int
				if fmt.Sscanf(string(ev.Cursor), "%d-%d", &inc, &at); ev.Cursor != "" && inc == n.inc {
					then := make(map[string]Version)
					for _, old := range n.log[:at] {
						apply(then, old)
					}
					if !maps.Equal(shown, then) {
						t.Fatalf("at cursor %s: shown %v, the node had %v", ev.Cursor, shown, then)
					}
				}
			}
		}
		open := func() {
			opts, out := v.reopen(nil)
			deliver(out)
			var first []Event
			s, first = n.open(opts)
			v.accepted()
			for _, ev := range first {
				deliver(v.step(ev, nil))
			}
		}
		open()
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				if rapid.Bool().Draw(t, "twice") {
					_, out := v.reopen(nil) // that connection broke before it was accepted
					deliver(out)
				}
				open()
			case 1:
				if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
					n.inc++
					open()
				}
			case 2:
				if s.phase == phaseLive && rapid.IntRange(0, 2).Draw(t, "behind") == 0 {
					s.snapshot()
					deliver(v.step(Event{Type: EventResync}, nil))
				}
			case 3, 4, 5:
				n.write(t)
			default:
				if ev, ok := s.next(); ok {
					deliver(v.step(ev, nil))
				}
			}
		}
		for {
			ev, ok := s.next()
			if !ok {
				break
			}
			deliver(v.step(ev, nil))
		}
		want := make(map[string]Version)
		for key, e := range n.entries {
			want[key] = e.Version
		}
		if !maps.Equal(shown, want) || !synced {
			t.Fatalf("shown %v, synced %v; want %v", shown, synced, want)
		}
		if opts, _ := v.reopen(nil); opts.From == "" && len(n.log) > 0 {
			t.Fatal("nothing was missed, and yet it does not resume")
		}
	})
}

func apply(shown map[string]Version, ev Event) {
	switch ev.Type {
	case EventResync:
		clear(shown)
	case EventPut:
		shown[ev.Entry.Key] = ev.Entry.Version
	case EventDelete:
		delete(shown, ev.Entry.Key)
	}
}
