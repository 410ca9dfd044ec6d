package machine

import (
	"github.com/meshkv/meshkv/crdt"
)

// reader takes values off a command, a result or a record of a snapshot. After the
// first error it reads zero values, so that callers check err once. Lengths are
// bounded before anything is allocated, as crdt.Decoder does it.
//
// Unlike in the formats of eventual keyspaces nothing is skipped: a replica that
// passed over a field which another one obeys would diverge from it.
type reader struct {
	d   crdt.Decoder
	err error
}

func newReader(b []byte) *reader {
	r := &reader{}
	r.d.Reset(b)
	return r
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// check fails with ErrMalformed unless ok.
func (r *reader) check(ok bool) {
	if !ok {
		r.fail(ErrMalformed)
	}
}

// end fails if anything is left.
func (r *reader) end() { r.check(r.d.Len() == 0) }

func (r *reader) uint() uint64 {
	if r.err != nil {
		return 0
	}
	u, err := r.d.Uint()
	r.check(err == nil)
	return u
}

// upTo is a number of at most limit.
func (r *reader) upTo(limit uint64) uint64 {
	u := r.uint()
	if u > limit {
		r.fail(ErrMalformed)
		return 0
	}
	return u
}

func (r *reader) bool() bool {
	if r.err != nil {
		return false
	}
	b, err := r.d.Bool()
	r.check(err == nil)
	return b
}

func (r *reader) str(limit int) string {
	if r.err != nil {
		return ""
	}
	s, err := r.d.Str(limit)
	r.check(err == nil)
	return s
}

// name is a key or name of 1 to MaxKey bytes.
func (r *reader) name() string {
	s := r.str(MaxKey)
	r.check(s != "")
	return s
}

// bin is a copy of the bytes; it is not nil unless r failed.
func (r *reader) bin(limit int) []byte {
	if r.err != nil {
		return nil
	}
	b, err := r.d.Bin(limit)
	r.check(err == nil)
	return b
}

// array is the length of an array, 0 after an error.
func (r *reader) array(limit int) int {
	if r.err != nil {
		return 0
	}
	n, err := r.d.ArrayLen(limit)
	r.check(err == nil)
	return n
}

// fields takes the beginning of a structure of n fields.
func (r *reader) fields(n int) { r.check(r.array(n) == n) }

// writer is what values are written with; it never fails.
type writer struct{ *crdt.Encoder }

// fields begins a structure whose fields are the given numbers and what follows:
// n in all.
func (w writer) fields(n int, nums ...uint64) {
	w.ArrayLen(n)
	for _, u := range nums {
		w.Uint(u)
	}
}
