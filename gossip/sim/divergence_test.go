package sim

import "testing"

// Whatever a random schedule does to nodes and links, it is repaired by itself,
// and nobody takes it for a divergence.
func TestRandomSchedulesRaiseNoAlarm(t *testing.T) {
	from := firstSeed(t)
	for seed := from; seed < from+50; seed++ {
		s, err := Random(seed).Run()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range s.nodes {
			if got := n.rep.Stats().DivergenceAlarms; got > 0 {
				t.Fatalf("%s raised %d alarms\nreproduce: go test ./gossip/sim -run RaiseNoAlarm -seed %d", n.self, got, seed)
			}
		}
	}
}
