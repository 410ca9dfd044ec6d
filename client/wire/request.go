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
	StrongCall // Value: a client.StrongCall
	Admin      // Value: an AdminCall
)

// The types of requests about data types, which number themselves.
const (
	Update   RequestType = 20 // Value: an UpdateCall
	View     RequestType = 21 // Value: a ViewCall
	Elements RequestType = 22 // Value: an ElementsCall
)

// Of operators of eventual keyspaces. Value: a HistoryCall, a SettingsCall.
const (
	History  RequestType = 25
	Settings RequestType = 26
)

// Flags modify a request.
type Flags uint16

// The flags: of Put, of Get, of Delete (Durable), of List and of Watch. Local is of Get
// and List.
const (
	Ephemeral Flags = 1 << iota
	Durable
	IfAbsent
	Linearizable
	WithSiblings
	KeysOnly
	UpdatesOnly
	Local
	Exact
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
	Value     []byte // of Put, StrongCall, Admin, History, Settings and those about data types; when decoded, part of the payload
	TTL       time.Duration
	Flags     Flags
	IfVersion Version
	After     string // Get: a token, List: a key, Watch: a cursor
	Limit     uint64 // List: entries, 0 = no bound. Watch and Credit: bytes.
	Session   uint64 // of Put
	Acks      uint64 // of Put and Delete: 0 local, 1 quorum, 2 all, 2+n: n members
	Revision  uint64 // of Get and List
}

// AppendRequest appends r as one frame.
func AppendRequest(b []byte, r *Request) []byte {
	b, at := openFrame(b)
	fields := 3
	switch r.Type {
	case Put:
		fields = 12
	case Get, Watch:
		fields = 8
	case List, Delete:
		fields = 9
	case StrongCall, Update, View, Elements:
		fields = 5
	case Credit, Info, Digest, ForceLeave, Admin, History, Settings:
		fields = 4
	}
	b = AppendArray(b, fields)
	b = AppendUint(b, r.ID)
	b = AppendUint(b, uint64(r.Type))
	b = AppendUint(b, uint64(max(r.Timeout, 0)/time.Microsecond))
	switch r.Type {
	case Credit:
		b = AppendUint(b, r.Limit)
		return sealFrame(b, at)
	case ForceLeave:
		b = AppendBin(b, r.Key)
		return sealFrame(b, at)
	case Admin, History, Settings:
		b = AppendBin(b, r.Value)
		return sealFrame(b, at)
	case Put, Get, Delete, List, Watch, Info, Digest, StrongCall, Update, View, Elements:
		b = AppendBin(b, r.Keyspace)
	}
	switch r.Type {
	case Put, Get, Delete, List, Watch:
		b = AppendBin(b, r.Key)
		b = AppendUint(b, uint64(r.Flags))
	}
	switch r.Type {
	case Put:
		b = AppendBin(b, r.Value)
		b = AppendInt(b, int64(r.TTL))
		b = AppendUint(b, r.IfVersion.Inc)
		b = AppendUint(b, r.IfVersion.Seq)
		b = AppendUint(b, r.Session)
		b = AppendUint(b, r.Acks)
	case Get:
		b = AppendBin(b, r.After)
		b = AppendUint(b, r.Revision)
	case Delete:
		b = AppendUint(b, r.IfVersion.Inc)
		b = AppendUint(b, r.IfVersion.Seq)
		b = AppendUint(b, r.Acks)
	case List:
		b = AppendBin(b, r.After)
		b = AppendUint(b, r.Limit)
		b = AppendUint(b, r.Revision)
	case Watch:
		b = AppendBin(b, r.After)
		b = AppendUint(b, r.Limit)
	case StrongCall, Update, View, Elements:
		b = AppendBin(b, r.Value)
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
	d := Decoder{b: payload}
	*r = Request{}
	extra := d.Fields(3)
	r.ID = d.Uint()
	r.Type = requestType(&d)
	r.Timeout = time.Duration(min(d.Uint(), maxTimeout)) * time.Microsecond
	need := func(n int) {
		if extra -= n; extra < 0 {
			d.Fail("fields missing")
		}
	}
	// later reads fields that older clients do not send.
	later := func(fields ...*uint64) {
		if len(fields) > extra {
			return
		}
		extra -= len(fields)
		for _, f := range fields {
			*f = d.Uint()
		}
	}
	switch r.Type {
	case Credit:
		need(1)
		r.Limit = d.Uint()
	case ForceLeave:
		need(1)
		r.Key = d.Str()
	case Admin, History, Settings:
		need(1)
		r.Value = d.Bin()
	case Put, Get, Delete, List, Watch, Info, Digest, StrongCall, Update, View, Elements:
		need(1)
		r.Keyspace = d.Str()
	}
	switch r.Type {
	case Put, Get, Delete, List, Watch:
		need(2)
		r.Key = d.Str()
		r.Flags = Flags(d.Uint())
	}
	switch r.Type {
	case Put:
		need(4)
		r.Value = d.Bin()
		r.TTL = time.Duration(d.Int())
		r.IfVersion = Version{d.Uint(), d.Uint()}
		later(&r.Session)
		later(&r.Acks)
	case Get:
		need(1)
		r.After = d.Str()
		later(&r.Revision)
	case Delete:
		later(&r.IfVersion.Inc, &r.IfVersion.Seq)
		later(&r.Acks)
	case List:
		need(2)
		r.After = d.Str()
		r.Limit = d.Uint()
		later(&r.Revision)
	case Watch:
		need(2)
		r.After = d.Str()
		r.Limit = d.Uint()
	case StrongCall, Update, View, Elements:
		need(1)
		r.Value = d.Bin()
	}
	d.Skip(extra, 0)
	return d.End()
}

func requestType(d *Decoder) RequestType {
	if u := d.Uint(); u <= 255 {
		return RequestType(u)
	}
	return 0
}

// String is for logs and metrics.
func (t RequestType) String() string {
	names := [...]string{"", "put", "get", "delete", "list", "watch", "credit", "cancel", "info", "digest",
		"keyspaces", "members", "status", "leave", "ping", "force-leave", "strong call", "admin",
		Update: "update", View: "view", Elements: "elements", History: "history", Settings: "settings"}
	if int(t) < len(names) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}
