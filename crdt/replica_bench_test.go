package crdt

import (
	"iter"
	"strconv"
	"testing"
)

// onePerKey holds at most one cell a key: the cost of a Replica without that of
// an index.
type onePerKey struct {
	keys map[string][]*Cell
	dots map[Dot]*Cell
}

func (o *onePerKey) ByKey(key string) []*Cell { return o.keys[key] }

func (o *onePerKey) ByPath(key, path string) []*Cell            { panic("not used") }
func (o *onePerKey) Ascend(key, from string) iter.Seq[*Cell]    { panic("not used") }
func (o *onePerKey) Descend(key string, yield func(*Cell) bool) { panic("not used") }
func (o *onePerKey) Top(key string) *Cell                       { panic("not used") }
func (o *onePerKey) ByDot(d Dot) *Cell                          { return o.dots[d] }
func (o *onePerKey) Len() int                                   { return len(o.dots) }

func (o *onePerKey) Add(c *Cell) {
	o.dots[c.Dot] = c
	o.keys[c.Key] = append(o.keys[c.Key][:0], c)
}

func (o *onePerKey) Replace(old, c *Cell) {
	delete(o.dots, old.Dot)
	o.Add(c)
}

func (o *onePerKey) Remove(c *Cell) { delete(o.dots, c.Dot) }

func newBenchReplica() *Replica {
	return NewReplica(State{Inc: 1, Clock: NewClock(), Cells: &onePerKey{make(map[string][]*Cell), make(map[Dot]*Cell)}})
}

func BenchmarkOverwrite(b *testing.B) {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = "key/" + strconv.Itoa(i)
	}
	r, value := newBenchReplica(), make([]byte, 100)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := r.Put(Write{Key: keys[i%1000], Kind: KindRegister, Value: value}); err != nil {
			b.Fatal(err)
		}
		r.Changes().Reset()
	}
}

func BenchmarkApplyOverwrite(b *testing.B) {
	writer, reader := newBenchReplica(), newBenchReplica()
	ops := make([]*Op, 0, 1<<16)
	for i := range cap(ops) {
		op, err := writer.Put(Write{Key: "key/" + strconv.Itoa(i%1000), Kind: KindRegister})
		if err != nil {
			b.Fatal(err)
		}
		ops = append(ops, op...)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(ops) == 0 {
			reader = newBenchReplica()
		}
		reader.Apply(ops[i%len(ops)])
		reader.Changes().Reset()
	}
}

// A one-cell overwrite allocates the cell and what it returns.
func TestOverwriteAllocations(t *testing.T) {
	r := newBenchReplica()
	put := func() {
		if _, err := r.Put(Write{Key: "key", Kind: KindRegister}); err != nil {
			t.Fatal(err)
		}
		r.Changes().Reset()
	}
	put()
	if n := testing.AllocsPerRun(1000, put); n > 2 {
		t.Errorf("%v allocations, want 2", n)
	}
}
