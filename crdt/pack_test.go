package crdt

import (
	"runtime"
	"runtime/metrics"
	"strconv"
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

// What is left of a packed cell, be it the key alone, is whole after the memory
// of many others was given back and used again.
func TestPackedPartsOutliveTheirCell(t *testing.T) {
	type part struct {
		key, path string
		value     []byte
	}
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			parts := make([]part, 0, 3000)
			for i := range cap(parts) {
				text := strings.Repeat(strconv.Itoa(w)+"/"+strconv.Itoa(i)+" ", 1+i%12)
				c := Cell{Key: text, Path: text, Value: []byte(text)}.pack()
				switch i % 3 {
				case 0:
					parts = append(parts, part{key: c.Key})
				case 1:
					parts = append(parts, part{path: c.Path})
				default:
					parts = append(parts, part{value: c.Value})
				}
				if i%1000 == 0 {
					runtime.GC()
				}
			}
			for i, p := range parts {
				text := strings.Repeat(strconv.Itoa(w)+"/"+strconv.Itoa(i)+" ", 1+i%12)
				if got := p.key + p.path + string(p.value); got != text {
					t.Errorf("%d: got %q, want %q", i, got, text)
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
