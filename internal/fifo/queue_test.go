package fifo

import (
	"testing"

	"pgregory.net/rapid"
)

// held counts the chunks of q.
func held[T any](q *Queue[T]) (chunks int) {
	for _, c := range q.chunks {
		if c != nil {
			chunks++
		}
	}
	if q.spare != nil {
		chunks++
	}
	return chunks
}

// A queue is the slice that it stands for, whatever happens to it, keeps no
// dropped item and no memory but the chunks of its items and a spare one.
func TestQueueEqualsSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Queue[*int]
		var model []*int
		for range rapid.IntRange(1, 20).Draw(t, "runs") {
			// Runs about as long as a chunk, so that its ends are met in every way.
			n := rapid.OneOf(rapid.IntRange(1, 3), rapid.IntRange(chunkItems-2, chunkItems+2), rapid.IntRange(1, 5*chunkItems)).Draw(t, "n")
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0:
				q.Reset()
				model = nil
				if held(&q) != 0 || q.chunks != nil {
					t.Fatal("memory is held after a reset")
				}
			case 1, 2, 3:
				for range min(n, len(model)) {
					dropped := q.At(0)
					q.Drop()
					model = model[1:]
					if *dropped != nil {
						t.Fatal("a dropped item is kept")
					}
				}
			default:
				for range n {
					item := new(int)
					q.Push(item)
					model = append(model, item)
				}
			}
			if q.Len() != len(model) {
				t.Fatalf("%d items, want %d", q.Len(), len(model))
			}
			for i, want := range model {
				if *q.At(i) != want {
					t.Fatalf("item %d of %d is another", i, len(model))
				}
			}
			// One that is partly used at each end, and the spare one.
			if got, most := held(&q), (len(model)+chunkItems-2)/chunkItems+2; got > most || len(model) == 0 && got > 1 {
				t.Fatalf("%d chunks for %d items", got, len(model))
			}
		}
	})
}

// Items stay where they are: growing copies none.
func TestQueueMovesNoItem(t *testing.T) {
	var q Queue[int]
	var places []*int
	for i := range 20 * chunkItems {
		q.Push(i)
		places = append(places, q.At(i))
	}
	for i, p := range places {
		if q.At(i) != p {
			t.Fatalf("item %d moved", i)
		}
	}
}

// A queue that drops as many as come allocates nothing.
func TestQueueReusesChunks(t *testing.T) {
	var q Queue[int]
	for i := range 3 * chunkItems {
		q.Push(i)
	}
	if allocs := testing.AllocsPerRun(1, func() { // it rounds down what it counts a run
		for i := range 10 * chunkItems {
			q.Drop()
			q.Push(i)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations in 10 chunks of pushes", allocs)
	}
}

func BenchmarkPushDrop(b *testing.B) {
	var q Queue[[5]int]
	for range 1 << 16 {
		q.Push([5]int{})
	}
	b.ReportAllocs()
	for b.Loop() {
		q.Drop()
		q.Push([5]int{1})
	}
}

func BenchmarkAt(b *testing.B) {
	var q Queue[[5]int]
	for range 1 << 16 {
		q.Push([5]int{})
	}
	for i := 0; b.Loop(); i++ {
		if q.At(i & (1<<16 - 1))[0] != 0 {
			b.Fatal("another item")
		}
	}
}
