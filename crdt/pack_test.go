package crdt

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

// A packed cell is a copy of all bytes, in one block up to the largest class.
func TestPackKeepsEveryByteInOneBlock(t *testing.T) {
	text := strings.Repeat("0123456789", 30)
	for n := 3; n <= len(text); n++ {
		c := Cell{Key: text[:1+n/3], Path: text[1+n/3 : 1+n/2], Value: []byte(text[1+n/2 : n])}
		packed := c.pack()
		if packed.Key != c.Key || packed.Path != c.Path || string(packed.Value) != string(c.Value) || cap(packed.Value) != len(c.Value) {
			t.Fatalf("%d bytes: got %q, %q, %q of %d", n, packed.Key, packed.Path, packed.Value, cap(packed.Value))
		}
		want := 1.0
		if n > 256 {
			want = 2
		}
		if got := testing.AllocsPerRun(10, func() { packed = c.pack() }); got != want {
			t.Errorf("%d bytes: %v blocks, want %v", n, got, want)
		}
	}
}

// A packed cell, and what is left of it, be it the key alone, is whole after the memory
// of many others was given back and used again.
func TestPackedCellsAndTheirPartsLive(t *testing.T) {
	textOf := func(w, i int) string { return strings.Repeat(fmt.Sprintf("%d/%d ", w, i), 1+i%12) }
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			const n = 4000
			kept, cells := make([]string, n), make([]*Cell, n)
			for i := range n {
				text := textOf(w, i)
				c := Cell{Key: text, Path: text, Value: []byte(text)}.pack()
				switch i % 4 {
				case 0:
					kept[i] = c.Key
				case 1:
					kept[i] = c.Path
				case 2:
					kept[i] = unsafe.String(unsafe.SliceData(c.Value), len(c.Value))
				default:
					cells[i] = c
				}
				if i%1000 == 0 {
					runtime.GC()
				}
			}
			runtime.GC()
			for i := range n { // takes what was given back
				cells[i/4*4] = Cell{Key: strings.Repeat("x", 1+i%80)}.pack()
			}
			for i := range n {
				text := textOf(w, i)
				if c := cells[i]; i%4 == 3 {
					if c.Key != text || c.Path != text || string(c.Value) != text {
						t.Errorf("%d: got %q, %q, %q, want %q", i, c.Key, c.Path, c.Value, text)
						return
					}
				} else if kept[i] != text {
					t.Errorf("%d: got %q, want %q", i, kept[i], text)
					return
				}
			}
		})
	}
	wg.Wait()
}

// The garbage collector looks into no packed cell.
func TestPackedCellsAreNotScanned(t *testing.T) {
	scanned := func() uint64 {
		runtime.GC()
		s := []metrics.Sample{{Name: "/gc/scan/heap:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	const n = 20_000
	cells := make([]*Cell, n)
	before := scanned()
	for i := range cells {
		cells[i] = Cell{Key: "key", Value: make([]byte, 100)}.pack()
	}
	if more := int64(scanned() - before); more > n*int64(unsafe.Sizeof(Cell{}))/4 {
		t.Errorf("%d bytes more are scanned for %d cells", more, n)
	}
	runtime.KeepAlive(cells)
}
