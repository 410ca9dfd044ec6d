package strong

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/replica"
)

// A Space is a strong keyspace at a node that has a replica of it. It implements
// client.Keyspace and, for its keyspace, the calls of client.StrongCaller.
type Space struct {
	name string
	r    *replica.Replica
}

var _ client.Keyspace = (*Space)(nil)

// New is the keyspace of that name, served from r.
func New(name string, r *replica.Replica) *Space { return &Space{name, r} }

// Name implements client.Keyspace.
func (s *Space) Name() string { return s.name }

// Put implements client.Keyspace.
func (s *Space) Put(ctx context.Context, key string, value []byte, o *client.PutOptions) (client.Version, error) {
	var opts client.PutOptions
	if o != nil {
		opts = *o
	}
	switch {
	case opts.Ephemeral:
		return client.Version{}, fmt.Errorf("%w: a strong keyspace binds entries to sessions: name a session, or give a time to live", client.ErrNeedsEventual)
	case opts.TTL < 0:
		return client.Version{}, fmt.Errorf("%w: a time to live cannot be negative, this one is %s", client.ErrBadRequest, opts.TTL)
	case opts.TTL > 0 && opts.Session != 0:
		return client.Version{}, fmt.Errorf("%w: an entry ends with its session or after its time to live: give one of them", client.ErrBadRequest)
	}
	if err := opts.Acks.LocalOnly(); err != nil {
		return client.Version{}, err
	}
	if err := checkWrite(key, value); err != nil {
		return client.Version{}, err
	}
	lease := machine.LeaseID(opts.Session)
	if opts.TTL > 0 {
		granted, err := s.grant(ctx, opts.TTL, machine.Request{})
		if err != nil {
			return client.Version{}, err
		}
		lease = granted
	}
	v, err := s.change(ctx, guard(key, opts.IfAbsent, opts.IfVersion), &machine.Put{Key: key, Value: value, Lease: lease})
	if err != nil && opts.TTL > 0 {
		s.revoke(ctx, lease) // else it ends by itself
	}
	return v.version, err
}

// Delete implements client.Keyspace.
func (s *Space) Delete(ctx context.Context, key string, o *client.DeleteOptions) (client.Deletion, error) {
	if err := checkKey(key); err != nil {
		return client.Deletion{}, err
	}
	var version client.Version
	if o != nil {
		if err := o.Acks.LocalOnly(); err != nil {
			return client.Deletion{}, err
		}
		version = o.IfVersion
	}
	c, err := s.change(ctx, guard(key, false, version), &machine.Delete{Span: machine.Span{Key: key}})
	if err != nil || c.count == 0 {
		return client.Deletion{}, err
	}
	return client.Deletion{Deleted: true, Version: c.version}, nil
}

// guard is the condition under which key is changed.
func guard(key string, absent bool, version client.Version) (compares []machine.Compare) {
	span := machine.Span{Key: key}
	if absent {
		compares = append(compares, machine.Compare{Span: span, Target: machine.TargetVersion, Relation: machine.Equal})
	}
	if !version.IsZero() {
		mod := version.Seq
		if version.Inc != 0 { // of an eventual keyspace
			mod = 0
			compares = append(compares, machine.Compare{Span: span, Target: machine.TargetVersion, Relation: machine.Greater})
		}
		compares = append(compares, machine.Compare{Span: span, Target: machine.TargetMod, Relation: machine.Equal, Number: mod})
	}
	return compares
}

type changed struct {
	version client.Version
	count   uint64
}

// change does op if all compares hold, and fails with client.ErrConflict otherwise.
func (s *Space) change(ctx context.Context, compares []machine.Compare, op machine.Op) (changed, error) {
	d, err := s.do(ctx, &machine.Txn{Compares: compares, Then: []machine.Op{op}}, machine.Request{})
	if err != nil {
		return changed{}, err
	}
	if !d.Txn.Succeeded {
		return changed{}, fmt.Errorf("%w: the key has another version", client.ErrConflict)
	}
	return changed{versionOf(d.Revision), d.Txn.Results[0].Count}, nil
}

// do has a command applied and sorts its errors.
func (s *Space) do(ctx context.Context, body machine.Body, q machine.Request) (replica.Done, error) {
	d, err := s.r.Do(ctx, body, q)
	if err == nil {
		err = d.Err
	}
	return d, failure(err)
}

// view is the state to read: linearizable unless local.
func (s *Space) view(ctx context.Context, local bool) (*machine.View, error) {
	if local {
		return s.r.View(), nil
	}
	v, err := s.r.Read(ctx)
	return v, failure(err)
}

// Get implements client.Keyspace.
func (s *Space) Get(ctx context.Context, key string, o *client.GetOptions) (client.Entry, error) {
	if err := checkKey(key); err != nil {
		return client.Entry{}, err
	}
	var opts client.GetOptions
	if o != nil {
		opts = *o
	}
	if opts.Local && opts.Linearizable {
		return client.Entry{}, fmt.Errorf("%w: a read is local or linearizable", client.ErrBadRequest)
	}
	// A token names what the read must have seen: a linearizable one has seen all.
	view, err := s.view(ctx, opts.Local && opts.After == "")
	if err != nil {
		return client.Entry{}, err
	}
	e := view.Get(key)
	if opts.Revision != 0 {
		res, err := view.Range(&machine.Get{Span: machine.Span{Key: key}, Revision: machine.Revision(opts.Revision)})
		if err != nil {
			return client.Entry{}, failure(err)
		}
		if e = nil; len(res.Entries) > 0 {
			e = res.Entries[0]
		}
	}
	if e == nil {
		return client.Entry{}, client.ErrNotFound
	}
	return entryOf(e), nil
}

// listPage is how many entries are taken from the state at once.
const listPage = 512

// List implements client.Keyspace. All entries are of one moment.
func (s *Space) List(ctx context.Context, prefix string, o *client.ListOptions) iter.Seq2[client.Entry, error] {
	var opts client.ListOptions
	if o != nil {
		opts = *o
	}
	return func(yield func(client.Entry, error) bool) {
		view, err := s.view(ctx, opts.Local)
		if err != nil {
			yield(client.Entry{}, err)
			return
		}
		get := machine.Get{Span: machine.Prefix(prefix), Revision: machine.Revision(opts.Revision), Limit: listPage, KeysOnly: opts.KeysOnly}
		if opts.After >= get.Span.Key && opts.After != "" {
			get.Span.Key = opts.After + "\x00"
		}
		for left := opts.Limit; get.Span.End == "\x00" || get.Span.Key < get.Span.End; {
			if left > 0 {
				get.Limit = uint64(min(left, listPage))
			}
			page, err := view.Range(&get)
			if err != nil {
				yield(client.Entry{}, failure(err))
				return
			}
			for _, e := range page.Entries {
				if ctx.Err() != nil {
					yield(client.Entry{}, failure(context.Cause(ctx)))
					return
				}
				if !yield(entryOf(e), nil) {
					return
				}
			}
			n := len(page.Entries)
			if left > 0 {
				if left -= n; left == 0 {
					return
				}
			}
			if !page.More {
				return
			}
			get.Span.Key = page.Entries[n-1].Key + "\x00"
		}
	}
}

// Info implements client.Keyspace.
func (s *Space) Info(context.Context) (client.KeyspaceInfo, error) {
	st := s.r.View().Status()
	return client.KeyspaceInfo{Name: s.name, Mode: "strong", Keys: st.Keys, Cells: st.Keys, Bytes: int64(st.Bytes)}, nil
}

// Digest implements client.Keyspace. It is that of the whole state, history included.
func (s *Space) Digest(context.Context) (client.Digest, error) {
	v := s.r.View()
	st := v.Status()
	return client.Digest{
		Keyspace: s.name, Digest: fmt.Sprintf("%016x", v.Digest()), Clock: fmt.Sprintf("%016x", st.Applied), Entries: st.Keys,
	}, nil
}

// grant makes a lease.
func (s *Space) grant(ctx context.Context, ttl time.Duration, q machine.Request) (machine.LeaseID, error) {
	ms := ttl.Milliseconds()
	if ms < machine.MinTTL || ms > machine.MaxTTL {
		return 0, fmt.Errorf("%w: a time to live of a strong keyspace is 1s to 24h, this one is %s", client.ErrBadRequest, ttl)
	}
	d, err := s.do(ctx, &machine.Grant{TTL: uint64(ms)}, q)
	return d.Lease, err
}

// revoke ends a lease that nobody needs, as well as it can.
func (s *Space) revoke(ctx context.Context, lease machine.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	s.do(ctx, &machine.Revoke{ID: lease}, machine.Request{})
}
