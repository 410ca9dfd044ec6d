package api

import (
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/wire"
)

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func wireVersion(v client.Version) wire.Version { return wire.Version{Inc: v.Inc, Seq: v.Seq} }

// wireEntry shares e's values. Unless they are left out, an empty value is not nil.
func wireEntry(e *client.Entry, keysOnly bool) wire.Entry {
	out := wire.Entry{
		Key:       e.Key,
		Type:      string(e.Type),
		Version:   wireVersion(e.Version),
		Origin:    e.Origin,
		Modified:  nanos(e.Modified),
		Expires:   nanos(e.Expires),
		Ephemeral: e.Ephemeral,
	}
	if !keysOnly && e.Type == client.TypeRegister {
		out.Value = present(e.Value)
	}
	for _, s := range e.Siblings {
		out.Siblings = append(out.Siblings, wire.Sibling{
			Value: present(s.Value), Version: wireVersion(s.Version), Origin: s.Origin, Modified: nanos(s.Modified),
		})
	}
	return out
}

func present(v []byte) []byte {
	if v == nil {
		return []byte{}
	}
	return v
}

var eventTypes = map[client.EventType]wire.EventType{
	client.EventPut:       wire.EventPut,
	client.EventDelete:    wire.EventDelete,
	client.EventSynced:    wire.EventSynced,
	client.EventResync:    wire.EventResync,
	client.EventHeartbeat: wire.EventHeartbeat,
}

func wireEvent(e *client.Event) wire.Event {
	out := wire.Event{Type: eventTypes[e.Type], Reason: string(e.Reason), Cursor: string(e.Cursor), More: e.More, Mine: e.Mine}
	switch e.Type {
	case client.EventPut:
		out.Entry = wireEntry(&e.Entry, false)
	case client.EventDelete:
		out.Entry = wireEntry(&e.Entry, e.Entry.Value == nil)
	}
	if e.Prev != nil {
		prev := wireEntry(e.Prev, false)
		out.Prev = &prev
	}
	return out
}
