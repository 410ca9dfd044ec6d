package gossip

import (
	"testing"
	"time"
)

// Of many peers that differ alike, sessions with the first settle what those with
// the others would: these do not begin, whichever side waits for them. A session
// that is still wanted does.
func TestSettledSessionsDoNotBegin(t *testing.T) {
	for name, test := range map[string]struct {
		hub  PeerID
		more bool  // one peer has something that the others have not
		most int64 // sessions that end
	}{
		"the hub begins":                {"a", false, 2},
		"the peers begin":               {"z", false, 2},
		"the hub begins, one has more":  {"a", true, 8},
		"the peers begin, one has more": {"z", true, 8},
	} {
		t.Run(name, func(t *testing.T) {
			hub := copies(t, 1, test.hub)[0]
			peers := copies(t, 300, "b", "c", "d", "e", "f", "g")
			want := 300
			if test.more {
				mustPut(t, peers[5], start, "more")
				want++
			}
			for _, p := range peers {
				linkUp(start, hub, p)
			}
			now := start
			for range 100 { // 5 s; frames take a step, so that all want a session before one ends
				now = now.Add(50 * time.Millisecond)
				hub.Tick(now)
				for _, p := range peers {
					p.Tick(now)
					carry(t, now, p, hub, 64<<10)
					carry(t, now, hub, p, 64<<10)
				}
			}
			var opened, began int64
			for _, r := range append(peers, hub) {
				opened += r.Stats().SessionsOpened
				began += r.Stats().SessionsConcluded
				if n := r.Replica().Cells().Len(); n != want {
					t.Errorf("%s has %d cells of %d", r.cfg.Self, n, want)
				}
			}
			if began > 2*test.most {
				t.Errorf("%d sessions opened, %d sides concluded, of %d", opened, began, 2*test.most)
			}
			t.Logf("%d opened, %d sides concluded", opened, began)
		})
	}
}
