package overlay

import "slices"

// Among is what Neighbours would be if the members were only self and those of
// which in says true: what a node does that has not heard of everybody yet. It
// allows one overlay to serve many such views. It calls in with names of members.
func (o *Overlay) Among(self string, in func(name string) bool) (names []string, complete bool) {
	if !o.Has(self) {
		return nil, false
	}
	names = make([]string, 0, MaxComplete)
	at := o.find(self, 0)
	n := o.Len()
	for i := 1; i < n && len(names) < MaxComplete; i++ {
		if name := o.rings[0][(at+i)%n].name; in(name) {
			names = append(names, name)
		}
	}
	if len(names) >= MaxComplete {
		names = names[:0]
		for i, ring := range o.rings {
			at := o.find(self, i)
			for _, step := range []int{1, n - 1} {
				j := (at + step) % n
				for !in(ring[j].name) {
					j = (j + step) % n
				}
				names = append(names, ring[j].name)
			}
		}
		slices.Sort(names)
		return slices.Compact(names), false
	}
	slices.Sort(names)
	return names, true
}
