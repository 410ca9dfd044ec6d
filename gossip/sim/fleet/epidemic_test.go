package fleet

import (
	"testing"
	"time"
)

// All rules bring every update to everybody in the end: gossip in rounds, and
// what it misses by exchanges.
func TestEpidemicReachesAll(t *testing.T) {
	for _, rules := range []Rules{NetworkDB, Piggyback, PushPull} {
		out, _ := SurveyRules(rules, small(t, 100), 10)
		if out.Spread.Share != 1 {
			t.Errorf("%s: a share of %f arrived", rules.Name, out.Spread.Share)
		}
		slow := rules.Gossip == 0
		if p50 := out.Spread.P50; slow != (p50 > 10*time.Second) || p50 < rules.Gossip/2 {
			t.Errorf("%s: half of the nodes within %s", rules.Name, p50)
		}
	}
}

// A packet holds what fits, the least sent first, and each update leaves Mult
// times ⌈log10(n+1)⌉.
func TestTransmissionsAreLimited(t *testing.T) {
	e := NewEpidemic(NetworkDB, 1, 99, 0, 440, LAN{}) // 500 bytes each: two a packet
	for range 5 {
		e.Put(0)
	}
	sent := make(map[int32]int)
	for range 100 {
		ids := e.take(&e.members[0])
		if len(ids) > 2 {
			t.Fatalf("%d updates in one packet", len(ids))
		}
		for _, id := range ids {
			sent[id]++
		}
	}
	for id := range int32(5) {
		if sent[id] != 8 {
			t.Errorf("update %d was sent %d times, want 4 × ⌈log10 100⌉", id, sent[id])
		}
	}
}
