package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
)

// filled is three replicas that hold the same n keys.
func filled(t *testing.T, cfg Config, n int) *Sim {
	s := New(cfg)
	for i := range n {
		s.Put(0, fmt.Sprintf("k%d", i), "", []byte("v"))
		if i%100 == 99 {
			must(t, s.RunFor(time.Millisecond))
		}
	}
	must(t, s.Settle(time.Minute))
	return s
}

func blown(s *Sim) (n int64) {
	for i := range s.nodes {
		n += s.Replicator(i).Stats().FuseBlown
	}
	return n
}

// Ordinary deletes on one side of a partition are no loss of cells.
func TestBulkDeleteInPartition(t *testing.T) {
	s := filled(t, lan(firstSeed(t), 3), 3000)
	s.Partition([]int{2}, []int{0, 1})
	must(t, s.RunFor(5*time.Second))
	for i := range 3000 {
		s.Delete(2, fmt.Sprintf("k%d", i))
	}
	must(t, s.Settle(30*time.Second))
	if n := s.Replicator(0).Replica().Cells().Len(); n != 0 || blown(s) != 0 {
		t.Fatalf("%d cells left, the fuse blew %d times", n, blown(s))
	}
}

func TestBulkDeleteOverflows(t *testing.T) {
	cfg := lan(firstSeed(t), 3)
	cfg.Limits = gossip.Limits{QueueRefs: 1000}
	s := filled(t, cfg, 5000)
	for i := range 5000 {
		s.Delete(0, fmt.Sprintf("k%d", i))
	}
	must(t, s.Settle(30*time.Second))
	if n := s.Replicator(1).Replica().Cells().Len(); n != 0 || blown(s) != 0 {
		t.Fatalf("%d cells left, the fuse blew %d times", n, blown(s))
	}
}

// One op that removes thousands looks like a loss. The two that are in sync have
// no second verdict for one another, and do not wait for one for ever, whatever
// is written in the meantime.
func TestBulkCollectInPartition(t *testing.T) {
	for _, writes := range []bool{false, true} {
		s := filled(t, lan(firstSeed(t), 3), 3000)
		var dots []crdt.Dot
		for i := range 3000 {
			for _, c := range s.Replicator(2).Replica().Cells().ByKey(fmt.Sprintf("k%d", i)) {
				dots = append(dots, c.Dot)
			}
		}
		s.Partition([]int{2}, []int{0, 1})
		must(t, s.RunFor(5*time.Second))
		if n := s.Collect(2, dots); n != 3000 {
			t.Fatalf("collected %d", n)
		}
		s.Heal()
		for i := range 30_000 {
			if writes {
				s.Put(i%2, fmt.Sprintf("new%d", i%10), "", []byte("v"))
			}
			must(t, s.RunFor(time.Millisecond))
		}
		if n := s.Replicator(0).Replica().Cells().Len(); n > 20 {
			t.Fatalf("writes %v: %d cells left", writes, n)
		}
		must(t, s.Settle(30*time.Second))
		if n := s.Replicator(0).Replica().Cells().Len(); n > 20 || blown(s) == 0 {
			t.Fatalf("writes %v: %d cells left, the fuse blew %d times", writes, n, blown(s))
		}
	}
}
