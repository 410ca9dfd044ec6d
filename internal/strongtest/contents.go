package strongtest

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/machine"
)

// Name implements client.Keyspace.
func (k *Keyspace) Name() string { return k.name }

// Put implements client.Keyspace.
func (k *Keyspace) Put(ctx context.Context, key string, value []byte, o *client.PutOptions) (client.Version, error) {
	if o == nil {
		o = &client.PutOptions{}
	}
	if o.TTL != 0 || o.Ephemeral {
		return client.Version{}, client.ErrNeedsEventual
	}
	t := &client.Txn{Then: []client.TxnOp{{Put: &client.TxnPut{Key: key, Value: value, Session: o.Session}}}}
	switch {
	case o.IfAbsent:
		t.Compares = []client.Compare{{Key: key, Target: client.TargetVersion, Relation: client.Equal}}
	case !o.IfVersion.IsZero():
		t.Compares = []client.Compare{{Key: key, Target: client.TargetMod, Relation: client.Equal, Number: o.IfVersion.Seq}}
	}
	r, err := k.StrongCall(ctx, k.name, &client.StrongCall{Kind: client.CallTxn, Txn: t})
	if err == nil && !r.Txn.Succeeded {
		err = client.ErrConflict
	}
	return client.Version{Seq: r.Txn.Revision}, err
}

// Get implements client.Keyspace. It is told apart from others by the origin: what was
// asked for.
func (k *Keyspace) Get(_ context.Context, key string, o *client.GetOptions) (client.Entry, error) {
	res, err := k.State().Range(&machine.Get{Span: machine.Span{Key: key}, Revision: machine.Revision(o.Revision)})
	switch {
	case err != nil:
		return client.Entry{}, clientError(err)
	case len(res.Entries) == 0:
		return client.Entry{}, client.ErrNotFound
	}
	e := entryOf(res.Entries[0])
	e.Origin = fmt.Sprintf("local=%v linearizable=%v", o.Local, o.Linearizable)
	return e, nil
}

func entryOf(e *machine.Entry) client.Entry {
	return client.Entry{Key: e.Key, Value: e.Value, Version: client.Version{Seq: uint64(e.Mod)}}
}

// Delete implements client.Keyspace.
func (k *Keyspace) Delete(ctx context.Context, key string, o *client.DeleteOptions) (d client.Deletion, err error) {
	t := &client.Txn{Then: []client.TxnOp{{Delete: &client.TxnDelete{Key: key}}}}
	if o != nil && !o.IfVersion.IsZero() {
		t.Compares = []client.Compare{{Key: key, Target: client.TargetMod, Relation: client.Equal, Number: o.IfVersion.Seq}}
	}
	r, err := k.StrongCall(ctx, k.name, &client.StrongCall{Kind: client.CallTxn, Txn: t})
	switch {
	case err != nil:
		return d, err
	case !r.Txn.Succeeded:
		return d, client.ErrConflict
	}
	d.Deleted, d.Version = r.Txn.Results[0].Deleted > 0, client.Version{Seq: r.Txn.Revision}
	return d, nil
}

// List implements client.Keyspace.
func (k *Keyspace) List(_ context.Context, prefix string, o *client.ListOptions) iter.Seq2[client.Entry, error] {
	return func(yield func(client.Entry, error) bool) {
		res, err := k.State().Range(&machine.Get{Span: machine.Prefix(prefix), Revision: machine.Revision(o.Revision)})
		if err != nil {
			yield(client.Entry{}, clientError(err))
			return
		}
		for _, e := range res.Entries {
			if e.Key > o.After && !yield(entryOf(e), nil) {
				return
			}
		}
	}
}

// Info implements client.Keyspace.
func (k *Keyspace) Info(context.Context) (client.KeyspaceInfo, error) {
	return client.KeyspaceInfo{Name: k.name, Mode: "strong", Keys: k.State().Status().Keys}, nil
}

// Digest implements client.Keyspace.
func (k *Keyspace) Digest(context.Context) (client.Digest, error) {
	return client.Digest{Keyspace: k.name, Digest: fmt.Sprintf("%x", k.State().Digest())}, nil
}

// Watch implements client.Keyspace: the changes from a revision on, or from now. Events
// of one revision belong together.
func (k *Keyspace) Watch(_ context.Context, _ string, o *client.WatchOptions) (client.Watch, error) {
	st := k.State().Status()
	w := &watch{k: k, from: st.Revision + 1, closed: make(chan struct{})}
	if o.From != "" {
		v, err := client.ParseVersion(string(o.From))
		if err != nil {
			return nil, err
		}
		w.from = machine.Revision(v.Seq) + 1
	}
	if w.from <= st.Compacted && o.Exact {
		return nil, client.ErrCompacted
	}
	return w, nil
}

type watch struct {
	k      *Keyspace
	from   machine.Revision
	queue  []client.Event
	once   sync.Once
	closed chan struct{}
}

// Next implements client.Watch.
func (w *watch) Next(ctx context.Context) (client.Event, error) {
	for len(w.queue) == 0 {
		w.k.mu.Lock()
		changes, err := w.k.m.View().Events(w.from, 1)
		changed := w.k.changed
		w.k.mu.Unlock()
		if err != nil {
			return client.Event{}, clientError(err)
		}
		for i, c := range changes {
			ev := client.Event{Type: client.EventDelete, Entry: client.Entry{Key: c.Key()}, Reason: client.ReasonDeleted}
			if c.Next != nil {
				ev.Type, ev.Entry, ev.Reason = client.EventPut, entryOf(c.Next), ""
			}
			at := uint64(c.Revision)
			if ev.More = i < len(changes)-1; ev.More {
				at--
			}
			ev.Cursor = client.Cursor(client.Version{Seq: at}.String())
			w.queue, w.from = append(w.queue, ev), c.Revision+1
		}
		if len(changes) > 0 {
			break
		}
		select {
		case <-changed:
		case <-w.closed:
			return client.Event{}, client.ErrClosed
		case <-ctx.Done():
			return client.Event{}, ctx.Err()
		}
	}
	ev := w.queue[0]
	w.queue = w.queue[1:]
	return ev, nil
}

// Close implements client.Watch.
func (w *watch) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}
