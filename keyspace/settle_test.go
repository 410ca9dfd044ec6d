package keyspace

import (
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// Where it is asked for, the origin of the shown value removes those that lost to
// it, once it has held them for long enough; elsewhere they stay.
func TestSettleAfter(t *testing.T) {
	for _, after := range []time.Duration{0, time.Minute} {
		p := newPair(t)
		p.a.SetSettleAfter(after)
		p.b.SetSettleAfter(after)
		p.run(2 * time.Second)
		p.cut()
		put(t, p.a, "k", "loser", nil)
		p.b.env.Clock.Observe(time.Now(), p.a.env.Clock.Last()) // so that the other is newer
		put(t, p.b, "k", "winner", nil)
		p.link()
		cells := func(want int, when string) {
			t.Helper()
			for _, k := range []*Keyspace{p.a, p.b} {
				if got := len(k.index.all("k")); got != want {
					t.Errorf("settle after %v, %s: %d cells at %s, want %d", after, when, got, k.env.Name, want)
				}
			}
			p.check(when, map[string]string{"k": "winner"})
		}
		p.run(30 * time.Second)
		cells(2, "at first")
		p.run(2 * time.Minute)
		if after == 0 {
			cells(2, "later")
		} else {
			cells(1, "later")
		}
		if got := p.a.Stats().OpsIssued; got != 1 {
			t.Errorf("the loser's node issued %d ops, want its put alone", got)
		}
		e, err := p.a.Get(t.Context(), "k", &client.GetOptions{Siblings: true})
		if err != nil || after > 0 && len(e.Siblings) > 1 {
			t.Errorf("got %+v, %v", e, err)
		}
	}
}
