package keyspace

import (
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

// The log gives back the newest changes, within its bounds.
func TestChangeLogBounds(t *testing.T) {
	var l changeLog
	for i := range maxLogChanges + 10 {
		l.publish(l.add(change{next: &crdt.Cell{Key: string(rune('a' + i%26))}}))
	}
	if l.held() != maxLogChanges || l.oldest() != 11 || l.last.Load() != maxLogChanges+10 {
		t.Errorf("held %d, oldest %d, last %d", l.held(), l.oldest(), l.last.Load())
	}
	for _, n := range []uint64{l.oldest(), l.last.Load()} {
		c, _, ok := l.at(n)
		if want := string(rune('a' + (n-1)%26)); !ok || c.key() != want {
			t.Errorf("change %d is %+v, want %q", n, c, want)
		}
	}
	if _, _, ok := l.at(10); ok {
		t.Error("change 10 is still there")
	}
	big := &crdt.Cell{Key: "big", Value: make([]byte, maxLogBytes/2)}
	for range 3 {
		l.publish(l.add(change{next: big}))
	}
	if l.bytes > maxLogBytes || l.held() != 1 || l.oldest() != l.last.Load() {
		t.Errorf("%d changes of %d bytes, oldest %d, last %d", l.held(), l.bytes, l.oldest(), l.last.Load())
	}
	held := 0
	for i := range *l.pages.Load() {
		if (*l.pages.Load())[i].Load() != nil {
			held++
		}
	}
	if held > 2 {
		t.Errorf("%d pages held for one change", held)
	}
}

// Readers without a lock see what was added, or are told that it is gone.
func TestChangeLogIsReadWhileItGrows(t *testing.T) {
	const changes = 3*maxLogChanges + 1000
	var l changeLog
	keys := make([]*crdt.Cell, 1000)
	for i := range keys {
		keys[i] = &crdt.Cell{Key: string(rune('a' + i))}
	}
	done := make(chan uint64)
	go func() {
		var read uint64
		for n := uint64(1); n <= changes; {
			if n > l.last.Load() {
				continue
			}
			c, _, ok := l.at(n)
			switch {
			case !ok:
				n = max(n+1, l.oldest())
				continue
			case c.next != keys[n%1000] || c.prev != nil:
				t.Errorf("change %d is %+v", n, c)
				n = changes
			}
			read++
			n++
		}
		done <- read
	}()
	for n := uint64(1); n <= changes; n++ {
		if got := l.add(change{next: keys[n%1000]}); got != n {
			t.Fatalf("change %d has number %d", n, got)
		}
		l.publish(n)
	}
	if <-done == 0 {
		t.Error("nothing was read")
	}
}
