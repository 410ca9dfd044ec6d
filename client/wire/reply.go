package wire

// A ReplyType says what a reply carries.
type ReplyType uint8

// The types of replies.
const (
	Error    ReplyType = iota + 1 // Code and Message
	Written                       // of Put and Delete
	Found                         // of Get: Entry
	Page                          // of List: Entries, and whether there are More
	Opened                        // of Watch: events follow
	Happened                      // of Watch: Events
	Document                      // of Info, Digest, Keyspaces, Members and Status: the value of package client, by vmihailenco/msgpack
	Done                          // of Leave, ForceLeave and Ping
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
}

// A Reply is the union of all replies.
type Reply struct {
	ID      uint64
	Type    ReplyType
	Code    string // of Error: a code of the HTTP API
	Message string
	Version Version
	Deleted bool
	Entry   Entry
	Entries []Entry
	More    bool
	Events  []Event
	Body    []byte // of Document; when decoded, part of the payload
}

// AppendReply appends r as one frame. The caller sees to MaxReply.
func AppendReply(b []byte, r *Reply) []byte {
	b, at := openFrame(b)
	switch r.Type {
	case Error:
		b = appendReplyHead(b, r, 2)
		b = appendBin(b, r.Code)
		b = appendBin(b, r.Message)
	case Written:
		b = appendReplyHead(b, r, 3)
		b = appendVersion(b, r.Version)
		b = appendBool(b, r.Deleted)
	case Found:
		b = appendReplyHead(b, r, 1)
		b = appendEntry(b, &r.Entry)
	case Page:
		b = appendReplyHead(b, r, 2)
		b = appendBool(b, r.More)
		b = appendArray(b, len(r.Entries))
		for i := range r.Entries {
			b = appendEntry(b, &r.Entries[i])
		}
	case Happened:
		b = appendReplyHead(b, r, 1)
		b = appendArray(b, len(r.Events))
		for i := range r.Events {
			b = appendEvent(b, &r.Events[i])
		}
	case Document:
		b = appendReplyHead(b, r, 1)
		b = appendBin(b, r.Body)
	default:
		b = appendReplyHead(b, r, 0)
	}
	return sealFrame(b, at)
}

func appendReplyHead(b []byte, r *Reply, more int) []byte {
	b = appendArray(b, 2+more)
	b = appendUint(b, r.ID)
	return appendUint(b, uint64(r.Type))
}

func appendVersion(b []byte, v Version) []byte {
	return appendUint(appendUint(b, v.Inc), v.Seq)
}

func appendValue(b, v []byte) []byte {
	if v == nil {
		return appendNil(b)
	}
	return appendBin(b, v)
}

const entryFields = 9

func appendEntry(b []byte, e *Entry) []byte {
	b = appendArray(b, entryFields)
	b = appendBin(b, e.Key)
	b = appendValue(b, e.Value)
	b = appendVersion(b, e.Version)
	b = appendBin(b, e.Origin)
	b = appendInt(b, e.Modified)
	b = appendInt(b, e.Expires)
	b = appendBool(b, e.Ephemeral)
	b = appendArray(b, len(e.Siblings))
	for i := range e.Siblings {
		s := &e.Siblings[i]
		b = appendArray(b, siblingFields)
		b = appendValue(b, s.Value)
		b = appendVersion(b, s.Version)
		b = appendBin(b, s.Origin)
		b = appendInt(b, s.Modified)
	}
	return b
}

const siblingFields = 5

func appendEvent(b []byte, e *Event) []byte {
	b = appendArray(b, eventFields)
	b = appendUint(b, uint64(e.Type))
	if e.Type == EventPut || e.Type == EventDelete {
		b = appendEntry(b, &e.Entry)
	} else {
		b = appendNil(b)
	}
	if e.Prev != nil {
		b = appendEntry(b, e.Prev)
	} else {
		b = appendNil(b)
	}
	b = appendBin(b, e.Reason)
	return appendBin(b, e.Cursor)
}

const eventFields = 5

// DecodeReply reads the payload of a frame. Values are parts of it.
func DecodeReply(payload []byte, r *Reply) error {
	d := decoder{b: payload}
	*r = Reply{}
	extra := d.fields(2)
	r.ID = d.uint()
	r.Type = ReplyType(min(d.uint(), 255))
	need := func(n int) {
		if extra -= n; extra < 0 {
			d.fail("fields missing")
		}
	}
	switch r.Type {
	case Error:
		need(2)
		r.Code, r.Message = d.str(), d.str()
	case Written:
		need(3)
		r.Version = Version{d.uint(), d.uint()}
		r.Deleted = d.bool()
	case Found:
		need(1)
		d.entry(&r.Entry)
	case Page:
		need(2)
		r.More = d.bool()
		for n := d.array(); n > 0 && d.err == nil; n-- {
			r.Entries = append(r.Entries, Entry{})
			d.entry(&r.Entries[len(r.Entries)-1])
		}
	case Happened:
		need(1)
		for n := d.array(); n > 0 && d.err == nil; n-- {
			r.Events = append(r.Events, Event{})
			d.event(&r.Events[len(r.Events)-1])
		}
	case Document:
		need(1)
		r.Body = d.bin()
	}
	d.skip(extra, 0)
	if d.err == nil && len(d.b) > 0 {
		d.fail("bytes after the reply")
	}
	return d.err
}

func (d *decoder) entry(e *Entry) {
	extra := d.fields(entryFields)
	e.Key = d.str()
	e.Value = d.bin()
	e.Version = Version{d.uint(), d.uint()}
	e.Origin = d.str()
	e.Modified, e.Expires = d.int(), d.int()
	e.Ephemeral = d.bool()
	for n := d.array(); n > 0 && d.err == nil; n-- {
		var s Sibling
		more := d.fields(siblingFields)
		s.Value = d.bin()
		s.Version = Version{d.uint(), d.uint()}
		s.Origin = d.str()
		s.Modified = d.int()
		d.skip(more, 1)
		e.Siblings = append(e.Siblings, s)
	}
	d.skip(extra, 0)
}

func (d *decoder) event(e *Event) {
	extra := d.fields(eventFields)
	e.Type = EventType(min(d.uint(), 255))
	if !d.nilNext() {
		d.entry(&e.Entry)
	}
	if !d.nilNext() && d.err == nil {
		e.Prev = new(Entry)
		d.entry(e.Prev)
	}
	e.Reason, e.Cursor = d.str(), d.str()
	d.skip(extra, 0)
}
