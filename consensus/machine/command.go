package machine

import "github.com/meshkv/meshkv/crdt"

// commandVersion is the version of the encoding of commands.
const commandVersion = 1

// A Command is one entry of the log.
type Command struct {
	// Wall is the proposer's clock, in milliseconds since the Unix epoch. It is data:
	// it dates changes (Entry.Modified) and decides nothing.
	Wall int64
	// Request makes the command take effect once. Zero: each time it is applied.
	Request Request
	// Body is what to do: a Txn, Compact, SetQuota, Grant, Revoke, Expire, Checkpoint, Acquire,
	// Release, Abort, EndDelay, Proclaim, DefinePool, RemovePool, Allocate or Free.
	Body Body
}

// A Body is what a command does.
type Body interface {
	kind() kind
	write(w writer)
	read(r *reader)
	// apply changes m and fills res, or sets res.Err and changes nothing.
	apply(m *Machine, res *Result)
}

type kind uint64

// Kinds of commands. They are part of the log format: append only.
const (
	kindTxn kind = iota + 1
	kindCompact
	kindSetQuota
	kindGrant
	kindRevoke
	kindExpire
	kindAcquire
	kindRelease
	kindAbort
	kindEndDelay
	kindProclaim
	kindDefinePool
	kindRemovePool
	kindAllocate
	kindFree
	kindCheckpoint
)

func newBody(k kind) Body {
	switch k {
	case kindTxn:
		return &Txn{}
	case kindCompact:
		return &Compact{}
	case kindSetQuota:
		return &SetQuota{}
	case kindGrant:
		return &Grant{}
	case kindRevoke:
		return &Revoke{}
	case kindExpire:
		return &Expire{}
	case kindAcquire:
		return &Acquire{}
	case kindRelease:
		return &Release{}
	case kindAbort:
		return &Abort{}
	case kindEndDelay:
		return &EndDelay{}
	case kindProclaim:
		return &Proclaim{}
	case kindDefinePool:
		return &DefinePool{}
	case kindRemovePool:
		return &RemovePool{}
	case kindAllocate:
		return &Allocate{}
	case kindFree:
		return &Free{}
	case kindCheckpoint:
		return &Checkpoint{}
	}
	return nil
}

// AppendBinary appends the command as [version, kind, wall, client, number, floor,
// since, body]. It fails with ErrTooLarge, and with the error that UnmarshalBinary
// would give: what cannot be applied is not worth a place in the log.
func (c *Command) AppendBinary(b []byte) ([]byte, error) {
	w := writer{crdt.NewEncoder()}
	w.Reset(b)
	w.fields(8, commandVersion, uint64(c.Body.kind()), uint64(c.Wall))
	w.request(c.Request)
	c.Body.write(w)
	encoded := w.Bytes()
	if err := new(Command).UnmarshalBinary(encoded[len(b):]); err != nil {
		return b, err
	}
	return encoded, nil
}

// UnmarshalBinary reads a command. Nothing in it refers to b afterwards. It fails
// with ErrMalformed, ErrTooLarge, ErrUnknownVersion or ErrUnknownCommand.
func (c *Command) UnmarshalBinary(b []byte) error {
	if len(b) > MaxCommand {
		return ErrTooLarge
	}
	r := newReader(b)
	n := r.array(64) // of any version
	if version := r.uint(); r.err == nil && version != commandVersion {
		return ErrUnknownVersion
	}
	k := kind(r.uint())
	r.check(n == 8)
	c.Wall = int64(r.upTo(maxWall))
	c.Request = r.request()
	if r.err != nil {
		return r.err
	}
	if c.Body = newBody(k); c.Body == nil {
		return ErrUnknownCommand
	}
	c.Body.read(r)
	r.end()
	return r.err
}

// maxWall keeps a wrong clock within what a crdt.HLC can count on from.
const maxWall = 1 << 46
