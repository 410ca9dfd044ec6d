package machine

import (
	"strings"

	"github.com/meshkv/meshkv/crdt"
)

// A Revision counts the commands that changed a keyspace. 0 stands for the current
// one where a revision is asked for.
type Revision uint64

// A Seq counts the changes of single keys, from 1 and without holes. It numbers the
// ops by which a strong keyspace is seen from everywhere (design §8).
type Seq uint64

// A Token fences: one given later is higher. 0 is none.
type Token uint64

// A LeaseID names a lease, which is also the session that locks and allocations are
// bound to. 0 is none.
type LeaseID uint64

// An Entry is one version of a key. It is shared by all who read it and must not be
// modified.
type Entry struct {
	Key      string
	Value    []byte
	Create   Revision // of the put before which there was no such key
	Mod      Revision // of this put
	Version  uint64   // puts since Create, with it
	Lease    LeaseID
	Seq      Seq      // of the change that put it
	Modified crdt.HLC // of the command
}

// A Change is what one command did to one key. It is shared and must not be modified.
type Change struct {
	Prev     *Entry // nil if there was none
	Next     *Entry // nil if it was deleted
	Revision Revision
	Seq      Seq
	Modified crdt.HLC
}

// Key is the key that changed.
func (c *Change) Key() string {
	if c.Next != nil {
		return c.Next.Key
	}
	return c.Prev.Key
}

func (e *Entry) cost() uint64 { return entryCost + uint64(len(e.Key)) + uint64(len(e.Value)) }

// size is what e counts in a result, in bytes: it is not encoded in more.
func (e *Entry) size() int { return 72 + len(e.Key) + len(e.Value) }

func (w writer) entry(e *Entry) {
	w.fields(8, uint64(e.Create), uint64(e.Mod), e.Version, uint64(e.Lease), uint64(e.Seq), uint64(e.Modified))
	w.Str(e.Key)
	w.Bin(e.Value)
}

func (r *reader) entry() *Entry {
	r.fields(8)
	e := &Entry{
		Create: Revision(r.uint()), Mod: Revision(r.uint()), Version: r.uint(), Lease: LeaseID(r.uint()),
		Seq: Seq(r.uint()), Modified: crdt.HLC(r.uint()),
	}
	e.Key, e.Value = r.name(), r.bin(MaxValue)
	return e
}

// A Span is the keys from Key on and before End. Without an End it is the one key Key;
// with the End "\x00" it has no upper bound. (etcd's ranges, but that Key may be empty
// where there is an End.)
type Span struct {
	Key, End string
}

// unbounded is the End of a Span up to the last key.
const unbounded = "\x00"

// Prefix is the span of all keys that begin with p.
func Prefix(p string) Span {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] < 0xff {
			return Span{p, p[:i] + string([]byte{p[i] + 1})}
		}
	}
	return Span{p, unbounded}
}

// one reports whether s is a single key.
func (s Span) one() bool { return s.End == "" }

// before reports whether key is below the upper bound of s.
func (s Span) before(key string) bool {
	switch s.End {
	case "":
		return key <= s.Key
	case unbounded:
		return true
	}
	return key < s.End
}

func (s Span) contains(key string) bool { return key >= s.Key && s.before(key) }

func (w writer) span(s Span) {
	w.Str(s.Key)
	w.Str(s.End)
}

func (r *reader) span() Span {
	s := Span{r.str(MaxKey), r.str(MaxKey)}
	r.check(s.Key != "" || s.End != "")
	return s
}

// byKeyRevision orders superseded entries.
func byKeyRevision(a, b *Change) bool {
	if c := strings.Compare(a.Prev.Key, b.Prev.Key); c != 0 {
		return c < 0
	}
	return a.Prev.Mod < b.Prev.Mod
}
