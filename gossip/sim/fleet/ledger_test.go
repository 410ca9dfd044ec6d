package fleet

import (
	"strings"
	"testing"
	"time"
)

// The check finds what it is there to find.
func TestLedgerFinds(t *testing.T) {
	play := func() (*Fleet, dot, dot) {
		f := New(small(t, 12))
		must(t, f.RunFor(3*time.Second))
		first := f.Put(0, Key(0), []byte("first"))
		must(t, f.RunFor(time.Second))
		second := f.Put(1, Key(0), []byte("second"))
		settled(t, f, time.Minute)
		return f, first, second
	}
	for want, spoil := range map[string]func(f *Fleet, first, second dot){
		"resurrected": func(f *Fleet, _, second dot) { // it should have been removed
			d := dot{Inc: second.Inc, Seq: second.Seq}
			f.ledger.ops[d].removes = append(f.ledger.ops[d].removes, second)
		},
		"lost": func(f *Fleet, _, second dot) { f.ledger.ops[second].removes = nil },
		"never put": func(f *Fleet, _, second dot) {
			delete(f.ledger.ops, second)
			f.ledger.order = f.ledger.order[:len(f.ledger.order)-1]
		},
		"unknown":   func(f *Fleet, first, _ dot) { f.ledger.issued(dot{Inc: first.Inc, Seq: 99}, true, nil) },
		"clocks of": func(f *Fleet, first, _ dot) { f.nodes[5].rep.CloseInc(first.Inc) },
	} {
		f, first, second := play()
		spoil(f, first, second)
		if err := f.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one that says %q", err, want)
		}
	}
}

// An op that only a lost disk held may be missing, and no other.
func TestLostWithItsDisk(t *testing.T) {
	f := New(small(t, 12))
	must(t, f.RunFor(3*time.Second))
	known := f.Put(3, Key(0), []byte("known"))
	settled(t, f, time.Minute)
	f.Partition([]int{3})
	alone := f.Put(3, Key(1), []byte("alone"))
	must(t, f.RunFor(20*time.Second))
	f.Stop(3, Power)
	f.Start(3, true)
	if !f.ledger.ops[alone].lost || f.ledger.ops[known].lost {
		t.Fatalf("lost: alone %v, known %v", f.ledger.ops[alone].lost, f.ledger.ops[known].lost)
	}
	f.Heal()
	settled(t, f, time.Minute)
}
