package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// Every 10 minutes the tries are compared with what they stand for, in steps; what
// differs is counted, and put right unless the trie holds a cell that the replica
// does not.
func TestScrub(t *testing.T) {
	const n = 6000
	for name, spoil := range map[string]func(r *Replicator){
		"nothing":     func(*Replicator) {},
		"a lost cell": func(r *Replicator) { r.data.Remove(r.replica.Cells().ByKey("key7")[0]) },
		"a ghost":     func(r *Replicator) { r.data.Insert(&crdt.Cell{Key: "ghost", Dot: crdt.Dot{Inc: 9, Seq: 9}}) },
		"the clock":   func(r *Replicator) { r.clock.sum.Update(77, crdt.Entry{Prefix: 3}) },
		"one for other": func(r *Replicator) {
			r.data.Remove(r.replica.Cells().ByKey("key7")[0])
			r.data.Insert(&crdt.Cell{Key: "ghost", Dot: crdt.Dot{Inc: 9, Seq: 9}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, sound := newReplicator("a", 1, Limits{}), newReplicator("a", 1, Limits{})
			for i := range n {
				mustPut(t, r, start, fmt.Sprint("key", i))
				mustPut(t, sound, start, fmt.Sprint("key", i))
			}
			spoil(r)
			now := start
			for range 16 * 60 * 20 { // 16 minutes, while it changes
				now = now.Add(50 * time.Millisecond)
				r.Tick(now)
				if i := int(now.Sub(start) / (50 * time.Millisecond)); i%100 == 0 {
					mustPut(t, r, now, fmt.Sprint("key", i%n))
					mustPut(t, sound, now, fmt.Sprint("key", i%n))
				}
			}
			st := r.Stats()
			if st.Scrubs != 2 {
				t.Fatalf("%d scrubs in 16 minutes", st.Scrubs)
			}
			if found := st.ScrubDifferences > 0; found != (name != "nothing") {
				t.Errorf("%d differences", st.ScrubDifferences)
			}
			ghost := name == "a ghost" || name == "one for other"
			if r.Damaged() != ghost || r.Stats().Damaged > 0 != ghost {
				t.Errorf("damaged: %v", r.Damaged())
			}
			if !ghost {
				equalRoots(t, r, sound)
			}
		})
	}
}
