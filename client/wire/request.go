package wire

import (
	"fmt"
	"time"
)

// A RequestType says what a request asks for.
type RequestType uint8

// The types of requests. Cancel and Credit concern the request whose id they
// carry and are not answered.
const (
	Put RequestType = iota + 1
	Get
	Delete
	List
	Watch
	Credit
	Cancel
	Info
	Digest
	Keyspaces
	Members
	Status
	Leave
	Ping
	ForceLeave
)

// Flags modify a request.
type Flags uint8

// The flags: of Put, of Get, of Delete (Durable), of List and of Watch.
const (
	Ephemeral Flags = 1 << iota
	Durable
	IfAbsent
	Linearizable
	WithSiblings
	KeysOnly
	UpdatesOnly
)

// Has reports whether all of want are set.
func (f Flags) Has(want Flags) bool { return f&want == want }

// A Version names one write.
type Version struct {
	Inc, Seq uint64
}

// A Request is the union of all requests; each type carries the fields that
// concern it.
type Request struct {
	ID        uint64
	Type      RequestType
	Timeout   time.Duration // from its arrival; 0: none. In whole microseconds.
	Keyspace  string
	Key       string // the prefix of List and Watch, the member of ForceLeave
	Value     []byte // of Put; when decoded, part of the payload
	TTL       time.Duration
	Flags     Flags
	IfVersion Version
	After     string // Get: a token, List: a key, Watch: a cursor
	Limit     uint64 // List: entries, 0 = no bound. Watch and Credit: bytes.
}

// AppendRequest appends r as one frame.
func AppendRequest(b []byte, r *Request) []byte {
	b, at := openFrame(b)
	fields := 3
	switch r.Type {
	case Put:
		fields = 10
	case Get:
		fields = 7
	case Delete:
		fields = 6
	case List, Watch:
		fields = 8
	case Credit, Info, Digest, ForceLeave:
		fields = 4
	}
	b = appendArray(b, fields)
	b = appendUint(b, r.ID)
	b = appendUint(b, uint64(r.Type))
	b = appendUint(b, uint64(max(r.Timeout, 0)/time.Microsecond))
	switch r.Type {
	case Credit:
		b = appendUint(b, r.Limit)
		return sealFrame(b, at)
	case ForceLeave:
		b = appendBin(b, r.Key)
		return sealFrame(b, at)
	case Put, Get, Delete, List, Watch, Info, Digest:
		b = appendBin(b, r.Keyspace)
	}
	switch r.Type {
	case Put, Get, Delete, List, Watch:
		b = appendBin(b, r.Key)
		b = appendUint(b, uint64(r.Flags))
	}
	switch r.Type {
	case Put:
		b = appendBin(b, r.Value)
		b = appendInt(b, int64(r.TTL))
		b = appendUint(b, r.IfVersion.Inc)
		b = appendUint(b, r.IfVersion.Seq)
	case Get:
		b = appendBin(b, r.After)
	case List, Watch:
		b = appendBin(b, r.After)
		b = appendUint(b, r.Limit)
	}
	return sealFrame(b, at)
}

// MaxCredit bounds the credit of a watch; the node grants no more, whatever it
// is asked for.
const MaxCredit = 64 << 20

// maxTimeout keeps a timeout within a Duration.
const maxTimeout = uint64(24 * time.Hour / time.Microsecond)

// DecodeRequest reads the payload of a frame. A request of an unknown type is
// decoded up to its type: the server answers that it does not know it.
func DecodeRequest(payload []byte, r *Request) error {
	d := decoder{b: payload}
	*r = Request{}
	extra := d.fields(3)
	r.ID = d.uint()
	r.Type = requestType(&d)
	r.Timeout = time.Duration(min(d.uint(), maxTimeout)) * time.Microsecond
	need := func(n int) {
		if extra -= n; extra < 0 {
			d.fail("fields missing")
		}
	}
	switch r.Type {
	case Credit:
		need(1)
		r.Limit = d.uint()
	case ForceLeave:
		need(1)
		r.Key = d.str()
	case Put, Get, Delete, List, Watch, Info, Digest:
		need(1)
		r.Keyspace = d.str()
	}
	switch r.Type {
	case Put, Get, Delete, List, Watch:
		need(2)
		r.Key = d.str()
		r.Flags = Flags(d.uint())
	}
	switch r.Type {
	case Put:
		need(4)
		r.Value = d.bin()
		r.TTL = time.Duration(d.int())
		r.IfVersion = Version{d.uint(), d.uint()}
	case Get:
		need(1)
		r.After = d.str()
	case List, Watch:
		need(2)
		r.After = d.str()
		r.Limit = d.uint()
	}
	d.skip(extra, 0)
	if d.err == nil && len(d.b) > 0 {
		d.fail("bytes after the request")
	}
	return d.err
}

func requestType(d *decoder) RequestType {
	if u := d.uint(); u <= 255 {
		return RequestType(u)
	}
	return 0
}

// String is for logs and metrics.
func (t RequestType) String() string {
	names := [...]string{"", "put", "get", "delete", "list", "watch", "credit", "cancel", "info", "digest",
		"keyspaces", "members", "status", "leave", "ping", "force-leave"}
	if t > 0 && int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}
