package overlay

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// One overlay and a view give what an overlay of the view gives.
func TestAmongIsTheOverlayOfTheView(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 9, 17, 18, 19, 40, 200} {
		var all []Member
		for i := range n {
			all = append(all, Member{Name: fmt.Sprintf("node-%d", i), Zone: fmt.Sprintf("z%d", i%3)})
		}
		o := New(all)
		for range 20 {
			share := rng.IntN(101)
			seen := map[string]bool{}
			var view []Member
			for _, m := range all {
				if rng.IntN(100) < share || m.Name == "node-0" {
					seen[m.Name] = true
					view = append(view, m)
				}
			}
			got, complete := o.Among("node-0", func(name string) bool { return seen[name] })
			want, all := New(view).Neighbours("node-0")
			if !slices.Equal(got, want) || complete != all {
				t.Fatalf("%d of %d: %v %v, want %v %v", len(view), n, got, complete, want, all)
			}
		}
	}
	if names, _ := New(nil).Among("x", func(string) bool { return true }); names != nil {
		t.Fatalf("a stranger has neighbours %v", names)
	}
}
