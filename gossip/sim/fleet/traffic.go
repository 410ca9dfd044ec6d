package fleet

import "github.com/meshkv/meshkv/crdt"

// kinds are the names of message kinds by their numbers.
var kinds = [...]string{
	"other", "hello", "op", "ihave", "graft", "summary", "session", "busy", "abort", "prune", "choke", "behind", "beacon",
}

// Numbers of message kinds that other systems have, too.
const (
	kindOp      = 2
	kindSession = 6
)

// KindName is the name of a message kind.
func KindName(kind int) string { return kinds[kind] }

// Traffic is the messages and bytes that were sent, by kind.
type Traffic struct{ Messages, Bytes [len(kinds)]int64 }

// count takes a frame apart.
func (t *Traffic) count(frame []byte) {
	d := crdt.NewDecoder()
	d.Reset(frame)
	for d.Len() > 0 {
		before := d.Len()
		fields, err := d.ArrayLen(1 << 10)
		if err != nil || fields == 0 {
			return
		}
		kind, err := d.Uint()
		if err != nil || d.Skip(fields-1) != nil {
			return
		}
		if kind >= uint64(len(kinds)) {
			kind = 0
		}
		t.Messages[kind]++
		t.Bytes[kind] += int64(before - d.Len())
	}
}

// Total is the bytes of all kinds.
func (t *Traffic) Total() (bytes int64) {
	for _, b := range t.Bytes {
		bytes += b
	}
	return bytes
}

// Minus is what was sent since an earlier time.
func (t Traffic) Minus(earlier Traffic) Traffic {
	for i := range t.Bytes {
		t.Messages[i] -= earlier.Messages[i]
		t.Bytes[i] -= earlier.Bytes[i]
	}
	return t
}

// Traffic is what was sent so far.
func (f *Fleet) Traffic() Traffic { return f.traffic }
