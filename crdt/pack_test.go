package crdt

import (
	"strings"
	"testing"
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
