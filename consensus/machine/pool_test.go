package machine

import "testing"

// Blocks at the end of the numbers do not wrap around.
func TestPoolOfAllNumbers(t *testing.T) {
	const top = 1<<64 - 1
	r := newRig(t)
	r.must(&DefinePool{Pool{"p", 0, top}})
	r.refused(&Allocate{Pool: "p", Exact: true, At: top, Size: 2}, ErrPoolExhausted)
	r.refused(&Allocate{Pool: "p", Size: top, Align: 2, Exact: true, At: 1}, ErrPoolExhausted)
	high := r.must(&Allocate{Pool: "p", Exact: true, At: top, Size: 1})
	all := r.must(&Allocate{Pool: "p", Size: top})
	r.refused(&Allocate{Pool: "p", Size: 1, Align: top}, ErrPoolExhausted)
	r.swap()
	r.must(&Free{"p", high.First, high.Token})
	r.must(&Free{"p", all.First, all.Token})
	if r.m.free.Len() != 1 {
		t.Fatalf("%d gaps", r.m.free.Len())
	}
	r.must(&Allocate{Pool: "p", Size: 1, Align: top})
	if res := r.must(&Allocate{Pool: "p", Size: 1, Align: top}); res.First != top {
		t.Fatalf("got %d", res.First)
	}
	r.refused(&Allocate{Pool: "p", Size: 1, Align: top}, ErrPoolExhausted)
}

// A gap without an aligned place is passed over.
func TestAlignedBlockInALaterGap(t *testing.T) {
	r := newRig(t)
	r.must(&DefinePool{Pool{"p", 1, 9}})
	r.must(&Allocate{Pool: "p", Exact: true, At: 2, Size: 3})
	if res := r.must(&Allocate{Pool: "p", Size: 2, Align: 4}); res.First != 8 {
		t.Fatalf("got %d, want 8", res.First)
	}
}

// The token of a block that was freed does not free the next one at its place.
func TestStaleTokenFreesNothing(t *testing.T) {
	r := newRig(t)
	r.must(&DefinePool{Pool{"p", 0, 0}})
	a := &Allocate{Pool: "p", Size: 1}
	stale := r.must(a).Token
	r.must(&Free{"p", 0, stale})
	token := r.must(a).Token
	r.refused(&Free{"p", 0, stale}, ErrNotHeld)
	r.refused(&Free{"p", 1, token}, ErrNotHeld)
	r.must(&Free{"p", 0, token})
}
