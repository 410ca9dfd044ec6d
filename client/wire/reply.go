package wire

// A ReplyType says what a reply carries.
type ReplyType uint8

// The types of replies.
const (
	Error    ReplyType = iota + 1 // Code and Message
	Written                       // of Put, Delete and Update
	Found                         // of Get: Entry
	Page                          // of List: Entries, and whether there are More
	Opened                        // of Watch: events follow
	Happened                      // of Watch: Events
	Document                      // of Info, Digest, Keyspaces, Members, Status and Admin: the value of package client, by vmihailenco/msgpack; of StrongCall: a client.StrongReply; of View and Elements: an array of this package
	Done                          // of Leave, ForceLeave, Ping and those Admin that answer nothing
	Draining                      // with id 0: the node is stopping, no more requests are served
)

// An Entry is one key. Times are Unix nanoseconds, 0 for none.
type Entry struct {
	Key       string
	Value     []byte // nil: left out. When decoded, part of the payload
	Version   Version
	Origin    string
	Modified  int64
	Expires   int64
	Ephemeral bool
	Siblings  []Sibling
	Type      string // a client.Type; empty: a register
}

// A Sibling is a concurrent value of a key.
type Sibling struct {
	Value    []byte
	Version  Version
	Origin   string
	Modified int64
}

// An EventType says what an Event reports.
type EventType uint8

// The types of events, as in package client.
const (
	EventPut EventType = iota + 1
	EventDelete
	EventSynced
	EventResync
	EventHeartbeat
)

// An Event is one item of a watch.
type Event struct {
	Type   EventType
	Entry  Entry
	Prev   *Entry
	Reason string
	Cursor string
	More   bool
	Mine   bool
}

// A Reply is the union of all replies.
type Reply struct {
	ID      uint64
	Type    ReplyType
	Code    string // of Error: a code of the HTTP API
	Message string
	// Acked and Want are of an Error that says that too few members acknowledged a
	// write: how many did, and how many were asked for.
	Acked, Want uint64
	Version     Version
	Deleted     bool
	Entry       Entry
	Entries     []Entry
	More        bool
	Events      []Event
	Body        []byte // of Document; when decoded, part of the payload
}

// AppendReply appends r as one frame. The caller sees to MaxReply.
func AppendReply(b []byte, r *Reply) []byte {
	b, at := openFrame(b)
	switch r.Type {
	case Error:
		b = appendReplyHead(b, r, 4)
		b = AppendBin(b, r.Code)
		b = AppendBin(b, r.Message)
		b = AppendUint(b, r.Acked)
		b = AppendUint(b, r.Want)
	case Written:
		b = appendReplyHead(b, r, 3)
		b = appendVersion(b, r.Version)
		b = AppendBool(b, r.Deleted)
	case Found:
		b = appendReplyHead(b, r, 1)
		b = appendEntry(b, &r.Entry)
	case Page:
		b = appendReplyHead(b, r, 2)
		b = AppendBool(b, r.More)
		b = AppendArray(b, len(r.Entries))
		for i := range r.Entries {
			b = appendEntry(b, &r.Entries[i])
		}
	case Happened:
		b = appendReplyHead(b, r, 1)
		b = AppendArray(b, len(r.Events))
		for i := range r.Events {
			b = appendEvent(b, &r.Events[i])
		}
	case Document:
		b = appendReplyHead(b, r, 1)
		b = AppendBin(b, r.Body)
	default:
		b = appendReplyHead(b, r, 0)
	}
	return sealFrame(b, at)
}

func appendReplyHead(b []byte, r *Reply, more int) []byte {
	b = AppendArray(b, 2+more)
	b = AppendUint(b, r.ID)
	return AppendUint(b, uint64(r.Type))
}

func appendVersion(b []byte, v Version) []byte {
	return AppendUint(AppendUint(b, v.Inc), v.Seq)
}

func appendValue(b, v []byte) []byte {
	if v == nil {
		return AppendNil(b)
	}
	return AppendBin(b, v)
}

const entryFields = 9

func appendEntry(b []byte, e *Entry) []byte {
	if e.Type == "" {
		b = AppendArray(b, entryFields)
	} else {
		b = AppendArray(b, entryFields+1)
	}
	b = AppendBin(b, e.Key)
	b = appendValue(b, e.Value)
	b = appendVersion(b, e.Version)
	b = AppendBin(b, e.Origin)
	b = AppendInt(b, e.Modified)
	b = AppendInt(b, e.Expires)
	b = AppendBool(b, e.Ephemeral)
	b = AppendArray(b, len(e.Siblings))
	for i := range e.Siblings {
		s := &e.Siblings[i]
		b = AppendArray(b, siblingFields)
		b = appendValue(b, s.Value)
		b = appendVersion(b, s.Version)
		b = AppendBin(b, s.Origin)
		b = AppendInt(b, s.Modified)
	}
	if e.Type != "" {
		b = AppendBin(b, e.Type)
	}
	return b
}

const siblingFields = 5

func appendEvent(b []byte, e *Event) []byte {
	b = AppendArray(b, eventFields)
	b = AppendUint(b, uint64(e.Type))
	if e.Type == EventPut || e.Type == EventDelete {
		b = appendEntry(b, &e.Entry)
	} else {
		b = AppendNil(b)
	}
	if e.Prev != nil {
		b = appendEntry(b, e.Prev)
	} else {
		b = AppendNil(b)
	}
	b = AppendBin(b, e.Reason)
	b = AppendBin(b, e.Cursor)
	b = AppendBool(b, e.More)
	return AppendBool(b, e.Mine)
}

const eventFields = 7

// DecodeReply reads the payload of a frame. Values are parts of it.
func DecodeReply(payload []byte, r *Reply) error {
	d := Decoder{b: payload}
	*r = Reply{}
	extra := d.Fields(2)
	r.ID = d.Uint()
	r.Type = ReplyType(min(d.Uint(), 255))
	need := func(n int) {
		if extra -= n; extra < 0 {
			d.Fail("fields missing")
		}
	}
	switch r.Type {
	case Error:
		need(2)
		r.Code, r.Message = d.Str(), d.Str()
		if extra >= 2 { // not of older nodes
			extra -= 2
			r.Acked, r.Want = d.Uint(), d.Uint()
		}
	case Written:
		need(3)
		r.Version = Version{d.Uint(), d.Uint()}
		r.Deleted = d.Bool()
	case Found:
		need(1)
		d.entry(&r.Entry)
	case Page:
		need(2)
		r.More = d.Bool()
		for n := d.Array(); n > 0 && d.err == nil; n-- {
			r.Entries = append(r.Entries, Entry{})
			d.entry(&r.Entries[len(r.Entries)-1])
		}
	case Happened:
		need(1)
		for n := d.Array(); n > 0 && d.err == nil; n-- {
			r.Events = append(r.Events, Event{})
			d.event(&r.Events[len(r.Events)-1])
		}
	case Document:
		need(1)
		r.Body = d.Bin()
	}
	d.Skip(extra, 0)
	return d.End()
}

func (d *Decoder) entry(e *Entry) {
	extra := d.Fields(entryFields)
	e.Key = d.Str()
	e.Value = d.Bin()
	e.Version = Version{d.Uint(), d.Uint()}
	e.Origin = d.Str()
	e.Modified, e.Expires = d.Int(), d.Int()
	e.Ephemeral = d.Bool()
	for n := d.Array(); n > 0 && d.err == nil; n-- {
		var s Sibling
		more := d.Fields(siblingFields)
		s.Value = d.Bin()
		s.Version = Version{d.Uint(), d.Uint()}
		s.Origin = d.Str()
		s.Modified = d.Int()
		d.Skip(more, 1)
		e.Siblings = append(e.Siblings, s)
	}
	if extra > 0 { // of another type than a register
		e.Type = d.Str()
		extra--
	}
	d.Skip(extra, 0)
}

func (d *Decoder) event(e *Event) {
	extra := d.Fields(eventFields - 2)
	e.Type = EventType(min(d.Uint(), 255))
	if !d.Nil() {
		d.entry(&e.Entry)
	}
	if !d.Nil() && d.err == nil {
		e.Prev = new(Entry)
		d.entry(e.Prev)
	}
	e.Reason, e.Cursor = d.Str(), d.Str()
	if extra > 0 { // not of older nodes
		e.More = d.Bool()
		extra--
	}
	if extra > 0 {
		e.Mine = d.Bool()
		extra--
	}
	d.Skip(extra, 0)
}
