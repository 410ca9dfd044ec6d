package node

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/keyspace"
)

// maxWarnings bounds the warnings that are given at once.
const maxWarnings = 50

// Warnings is what an operator should look at although the node is ready.
func (n *Node) Warnings() (all []string) {
	offsets := make(map[gossip.PeerID]time.Duration)
	for _, ks := range n.sorted() {
		for _, l := range ks.Links() {
			if l.Heard {
				offsets[l.Peer] = l.ClockOffset
			}
		}
		all = append(all, keyspaceWarnings(ks)...)
	}
	all = append(all, n.strongWarnings()...)
	if text := clockWarning(slices.Collect(maps.Values(offsets))); text != "" {
		all = slices.Insert(all, 0, text)
	}
	if over := len(all) - maxWarnings; over > 0 {
		all = append(all[:maxWarnings], fmt.Sprintf("and %d more", over))
	}
	return all
}

// clockWarning says that this node's clock is off, going by how far those of its
// neighbours are ahead of it. Beyond MaxClockDrift they would not follow it; half
// of that is time to act.
func clockWarning(offsets []time.Duration) string {
	median, off := gossip.ClockOff(offsets, keyspace.MaxClockDrift/2)
	if !off {
		return ""
	}
	direction := "behind"
	if median < 0 {
		direction = "ahead of"
	}
	return fmt.Sprintf("the clock of this node is %s %s those of its %d neighbours: set it", median.Abs().Round(100*time.Millisecond), direction, len(offsets))
}

func keyspaceWarnings(ks *keyspace.Keyspace) (all []string) {
	warn := func(format string, args ...any) {
		all = append(all, "keyspace "+ks.Name()+": "+fmt.Sprintf(format, args...))
	}
	s := ks.Stats()
	if s.OpsFarAhead > 0 {
		warn("%d writes came from a clock that is more than %s ahead of ours", s.OpsFarAhead, keyspace.MaxClockDrift)
	}
	if s.FuseHeld > 0 {
		warn("a reconciliation that would drop %d cells waits for a second verdict", s.FuseHeld)
	}
	switch {
	case s.Damaged > 0:
		warn("a value is missing in memory that its sums count: a bug, or failing memory. It reconciles with nobody until it is begun anew beside a peer, or this node is started again and finds it on disk")
	case s.ScrubDifferences > 0:
		warn("%d sums did not fit the cells and were repaired: a bug, or failing memory", s.ScrubDifferences)
	}
	if err := ks.SchemaError(); err != nil {
		warn("values are not checked, because the schema cannot be read here: %v; set it anew with 'meshkv keyspace set'", err)
	}
	for _, d := range ks.Divergences() {
		warn("differs from %s since %s: %s; 'meshkv diff' shows the keys", keyspace.PeerName(d.Peer), d.Since.UTC().Format(time.RFC3339), d.Reason)
	}
	return all
}
