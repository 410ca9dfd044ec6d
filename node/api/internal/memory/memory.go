// Package memory is a cluster of one node that keeps everything in one map
// under one mutex: the dumb model that the server is tested over.
package memory

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

// LogChanges is how many changes of a keyspace a watch can lag behind. It is
// small, so that tests meet it.
const LogChanges = 256

// A Cluster implements api.Backend.
type Cluster struct {
	inc uint64

	mu        sync.Mutex // protects the fields below and all keyspaces
	keyspaces map[string]*keyspace
	notReady  []string
	warnings  []string
	left      bool
	block     chan struct{} // writes wait for it; nil: they do not
	waiting   chan struct{} // receives a token for each write that waits
}

// New makes an empty cluster. Another inc is another start of its node: its
// cursors are not known to this one.
func New(inc uint64) *Cluster {
	return &Cluster{inc: inc, keyspaces: make(map[string]*keyspace), waiting: make(chan struct{}, 1024)}
}

// Restarted is the same data after a restart of the node under another inc.
func (c *Cluster) Restarted(inc uint64) *Cluster {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := New(inc)
	for name, k := range c.keyspaces {
		nk := &keyspace{c: next, name: name, entries: maps.Clone(k.entries), typed: maps.Clone(k.typed), changed: make(chan struct{}), seq: k.seq}
		next.keyspaces[name] = nk
	}
	return next
}

// SetNotReady sets what NotReady says.
func (c *Cluster) SetNotReady(reasons ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notReady = reasons
}

// Block makes writes wait until their context ends or unblock is called.
func (c *Cluster) Block() (unblock func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	block := make(chan struct{})
	c.block = block
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.block = nil
		close(block)
	})
}

// Waiting receives a token for each write that Block makes wait.
func (c *Cluster) Waiting() <-chan struct{} { return c.waiting }

// Warnings implements api.Backend.
func (c *Cluster) Warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.warnings)
}

// SetWarnings sets what Warnings says.
func (c *Cluster) SetWarnings(warnings ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warnings = warnings
}

// NotReady implements api.Backend.
func (c *Cluster) NotReady() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.notReady)
}

func checkName(name string) error {
	if name == "" || len(name) > 63 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" || strings.Contains("._-", name[:1]) {
		return fmt.Errorf("%w: keyspace %q is not [a-z0-9][a-z0-9._-]{0,62}", client.ErrBadRequest, name)
	}
	return nil
}

// Keyspace implements client.Cluster.
func (c *Cluster) Keyspace(_ context.Context, name string) (client.Keyspace, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.keyspaces[name]
	if k == nil {
		k = &keyspace{c: c, name: name, entries: make(map[string]client.Entry), typed: make(map[string]typed), changed: make(chan struct{})}
		c.keyspaces[name] = k
	}
	return k, nil
}

// Lookup implements api.Backend.
func (c *Cluster) Lookup(name string) (client.Keyspace, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.keyspaces[name]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("keyspace %s: %w", name, client.ErrNotFound)
}

// Keyspaces implements client.Cluster.
func (c *Cluster) Keyspaces(ctx context.Context) ([]client.KeyspaceInfo, error) {
	c.mu.Lock()
	names := slices.Sorted(maps.Keys(c.keyspaces))
	c.mu.Unlock()
	var out []client.KeyspaceInfo
	for _, name := range names {
		k, err := c.Keyspace(ctx, name)
		if err != nil {
			return nil, err
		}
		info, err := k.Info(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

// Members implements client.Cluster.
func (c *Cluster) Members(context.Context) ([]client.Member, error) {
	return []client.Member{{
		Name: "memory", Addr: "127.0.0.1:7950", APIAddr: "127.0.0.1:7951", Status: client.MemberAlive,
		Zone: "z1", Roles: []string{"test"}, Inc: fmt.Sprintf("%x", c.inc), RTT: 1500 * time.Microsecond,
	}}, nil
}

// Status implements client.Cluster.
func (c *Cluster) Status(context.Context) (client.Status, error) {
	return client.Status{
		Name: "memory", Inc: fmt.Sprintf("%x", c.inc), Version: "test", Uptime: time.Minute, Ready: true,
		Members:   map[client.MemberStatus]int{client.MemberAlive: 1},
		Links:     []client.LinkStatus{{Peer: "other", RTT: time.Millisecond, SentBytes: 1}},
		Keyspaces: []client.KeyspaceStatus{{Name: "k", Keys: 1}},
		Storage:   client.StorageStatus{Path: "/data", Lag: time.Second},
		Drops:     map[string]uint64{"frames": 2},
		Warnings:  []string{"a warning"},
	}, nil
}

// Leave implements client.Cluster.
func (c *Cluster) Leave(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	return nil
}

// Left reports whether Leave was called.
func (c *Cluster) Left() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left
}

type keyspace struct {
	c    *Cluster
	name string

	// Protected by c.mu.
	entries map[string]client.Entry
	typed   map[string]typed // with an entry each
	log     []client.Event   // the newest changes, without cursors
	last    uint64           // number of the newest
	seq     uint64
	changed chan struct{} // closed at the next change
}

func (k *keyspace) Name() string { return k.name }

func checkKey(key string) error {
	if len(key) == 0 || len(key) > 1024 {
		return fmt.Errorf("%w: a key has 1 to 1024 bytes, this one has %d", client.ErrBadRequest, len(key))
	}
	return nil
}

// append adds a change; c.mu is held.
func (k *keyspace) append(ev client.Event) {
	k.log = append(k.log, ev)
	if len(k.log) > LogChanges {
		k.log = k.log[1:]
	}
	k.last++
	close(k.changed)
	k.changed = make(chan struct{})
}

// expire removes what is due; c.mu is held.
func (k *keyspace) expire() {
	for key, e := range k.entries {
		if !e.Expires.IsZero() && !e.Expires.After(time.Now()) {
			k.remove(key, client.ReasonExpired)
		}
	}
}

func (k *keyspace) remove(key string, reason client.Reason) {
	prev := k.entries[key]
	delete(k.entries, key)
	delete(k.typed, key)
	k.append(client.Event{Type: client.EventDelete, Entry: client.Entry{Key: key}, Prev: &prev, Reason: reason})
}

func (k *keyspace) wait(ctx context.Context) error {
	k.c.mu.Lock()
	block := k.c.block
	k.c.mu.Unlock()
	if block == nil {
		return nil
	}
	k.c.waiting <- struct{}{}
	select {
	case <-block:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *keyspace) Put(ctx context.Context, key string, value []byte, o *client.PutOptions) (client.Version, error) {
	if o == nil {
		o = &client.PutOptions{}
	}
	switch err := checkKey(key); {
	case err != nil:
		return client.Version{}, err
	case o.IfAbsent || !o.IfVersion.IsZero():
		return client.Version{}, fmt.Errorf("%w: %s is eventual", client.ErrNeedsStrong, k.name)
	case len(value) > 64<<10:
		return client.Version{}, fmt.Errorf("%w: %d bytes", client.ErrTooLarge, len(value))
	case o.TTL < 0:
		return client.Version{}, fmt.Errorf("%w: negative ttl", client.ErrBadRequest)
	}
	if err := k.wait(ctx); err != nil {
		return client.Version{}, err
	}
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.expire()
	if e, ok := k.entries[key]; ok && e.Type != client.TypeRegister {
		return client.Version{}, client.WrongType(e.Type, client.TypeRegister)
	}
	k.seq++
	e := client.Entry{
		Key: key, Value: slices.Clone(value), Version: client.Version{Inc: k.c.inc, Seq: k.seq},
		Origin: "memory", Modified: time.Now().Truncate(time.Millisecond), Ephemeral: o.Ephemeral,
	}
	if o.TTL > 0 {
		e.Expires = time.Now().Add(o.TTL).Truncate(time.Millisecond)
	}
	ev := client.Event{Type: client.EventPut, Entry: e}
	if prev, ok := k.entries[key]; ok {
		ev.Prev = &prev
	}
	k.entries[key] = e
	k.append(ev)
	return e.Version, nil
}

func (k *keyspace) Get(ctx context.Context, key string, o *client.GetOptions) (client.Entry, error) {
	if err := checkKey(key); err != nil {
		return client.Entry{}, err
	}
	if o == nil {
		o = &client.GetOptions{}
	}
	if o.Linearizable {
		return client.Entry{}, fmt.Errorf("%w: %s is eventual", client.ErrNeedsStrong, k.name)
	}
	if o.After != "" {
		if err := k.waitFor(ctx, o.After); err != nil {
			return client.Entry{}, err
		}
	}
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.expire()
	e, ok := k.entries[key]
	switch {
	case !ok:
		return client.Entry{}, client.ErrNotFound
	case e.Type != client.TypeRegister:
		return client.Entry{}, client.WrongType(e.Type, client.TypeRegister)
	}
	if o.Siblings {
		e.Siblings = []client.Sibling{{Value: []byte("older"), Version: client.Version{Inc: 1, Seq: 1}, Origin: "other", Modified: e.Modified}}
	}
	return e, nil
}

// waitFor waits until the write of a token is here.
func (k *keyspace) waitFor(ctx context.Context, token client.Token) error {
	v, err := client.ParseVersion(string(token))
	if err != nil || v.Inc == 0 {
		return fmt.Errorf("%w: no token", client.ErrBadRequest)
	}
	for {
		k.c.mu.Lock()
		seen, changed := v.Inc == k.c.inc && v.Seq <= k.seq, k.changed
		k.c.mu.Unlock()
		if seen {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: waited for %s", client.ErrNotCaughtUp, token)
		}
	}
}

func (k *keyspace) Delete(ctx context.Context, key string, _ *client.DeleteOptions) (client.Deletion, error) {
	if err := checkKey(key); err != nil {
		return client.Deletion{}, err
	}
	if err := k.wait(ctx); err != nil {
		return client.Deletion{}, err
	}
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.expire()
	if _, ok := k.entries[key]; !ok {
		return client.Deletion{}, nil
	}
	k.seq++
	k.remove(key, client.ReasonDeleted)
	return client.Deletion{Deleted: true, Version: client.Version{Inc: k.c.inc, Seq: k.seq}}, nil
}

// sorted is a copy of what is under prefix; c.mu is held.
func (k *keyspace) sorted(prefix string) []client.Entry {
	k.expire()
	var out []client.Entry
	for _, key := range slices.Sorted(maps.Keys(k.entries)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, k.entries[key])
		}
	}
	return out
}

func (k *keyspace) List(ctx context.Context, prefix string, o *client.ListOptions) iter.Seq2[client.Entry, error] {
	if o == nil {
		o = &client.ListOptions{}
	}
	return func(yield func(client.Entry, error) bool) {
		if o.Limit < 0 {
			yield(client.Entry{}, fmt.Errorf("%w: negative limit", client.ErrBadRequest))
			return
		}
		k.c.mu.Lock()
		entries := k.sorted(prefix)
		k.c.mu.Unlock()
		n := 0
		for _, e := range entries {
			if e.Key <= o.After {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(client.Entry{}, err)
				return
			}
			if o.KeysOnly {
				e.Value = nil
			}
			if n++; !yield(e, nil) || n == o.Limit {
				return
			}
		}
	}
}

func (k *keyspace) Info(context.Context) (client.KeyspaceInfo, error) {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.expire()
	return client.KeyspaceInfo{Name: k.name, Mode: "eventual", Members: []string{"memory"}, Keys: len(k.entries), Cells: len(k.entries), Digest: "ab"}, nil
}

func (k *keyspace) Digest(context.Context) (client.Digest, error) {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.expire()
	return client.Digest{Keyspace: k.name, Digest: fmt.Sprintf("%x", k.seq), Clock: "cd", Entries: len(k.entries)}, nil
}

func (k *keyspace) Watch(_ context.Context, prefix string, o *client.WatchOptions) (client.Watch, error) {
	if o == nil {
		o = &client.WatchOptions{}
	}
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	w := &watch{k: k, prefix: prefix, closed: make(chan struct{}), at: k.last}
	switch {
	case o.From != "":
		inc, n, ok := strings.Cut(string(o.From), "-")
		num, err := strconv.ParseUint(n, 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("%w: no cursor", client.ErrBadRequest)
		}
		w.at = num
		if inc != fmt.Sprintf("%x", k.c.inc) {
			w.lost = true
		}
	case o.UpdatesOnly:
		w.queue = []client.Event{{Type: client.EventSynced, Cursor: w.cursor()}}
	default:
		w.snapshot()
	}
	return client.Filter(w, o), nil
}

type watch struct {
	k      *keyspace
	prefix string
	once   sync.Once
	closed chan struct{}

	// Protected by c.mu.
	queue []client.Event
	at    uint64 // number of the last change seen
	lost  bool   // at is unknown: a resync is due
}

func (w *watch) cursor() client.Cursor {
	return client.Cursor(fmt.Sprintf("%x-%d", w.k.c.inc, w.at))
}

func (w *watch) snapshot() {
	w.lost = false
	for _, e := range w.k.sorted(w.prefix) {
		w.queue = append(w.queue, client.Event{Type: client.EventPut, Entry: e})
	}
	w.at = w.k.last
	w.queue = append(w.queue, client.Event{Type: client.EventSynced, Cursor: w.cursor()})
}

// take returns the next event, or when to look again.
func (w *watch) take() (*client.Event, <-chan struct{}, time.Duration) {
	k := w.k
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.expire()
	for {
		if len(w.queue) > 0 {
			ev := w.queue[0]
			w.queue = w.queue[1:]
			return &ev, nil, 0
		}
		if w.lost || w.at > k.last || w.at+uint64(len(k.log)) < k.last {
			w.queue = append(w.queue, client.Event{Type: client.EventResync})
			w.snapshot()
			continue
		}
		if w.at == k.last {
			break
		}
		ev := k.log[uint64(len(k.log))-(k.last-w.at)]
		w.at++
		if strings.HasPrefix(ev.Entry.Key, w.prefix) {
			ev.Cursor = w.cursor()
			w.queue = append(w.queue, ev)
		}
	}
	due := time.Hour
	for _, e := range k.entries {
		if !e.Expires.IsZero() {
			due = min(due, max(time.Until(e.Expires), time.Millisecond))
		}
	}
	return nil, k.changed, due
}

func (w *watch) Next(ctx context.Context) (client.Event, error) {
	for {
		select {
		case <-w.closed:
			return client.Event{}, client.ErrClosed
		default:
		}
		ev, changed, due := w.take()
		if ev != nil {
			return *ev, nil
		}
		t := time.NewTimer(due)
		select {
		case <-changed:
		case <-t.C:
		case <-w.closed:
		case <-ctx.Done():
			t.Stop()
			return client.Event{}, ctx.Err()
		}
		t.Stop()
	}
}

func (w *watch) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// ForceLeave implements client.Cluster: there is this node, and one called failed.
func (c *Cluster) ForceLeave(_ context.Context, name string) error {
	switch name {
	case "memory":
		return client.ErrBadRequest
	case "failed":
		return nil
	}
	return client.ErrNotFound
}

// errNoStrong: there are eventual keyspaces only.
var errNoStrong = fmt.Errorf("%w: there is none here", client.ErrNeedsStrong)

// Strong implements client.Cluster.
func (c *Cluster) Strong(context.Context, string) (client.Strong, error) { return nil, errNoStrong }

// CreateKeyspace implements client.StrongAdmin.
func (c *Cluster) CreateKeyspace(context.Context, client.KeyspaceSpec) error { return errNoStrong }

// RemoveKeyspace implements client.StrongAdmin.
func (c *Cluster) RemoveKeyspace(context.Context, string) error { return errNoStrong }

// StrongInfo implements client.StrongAdmin.
func (c *Cluster) StrongInfo(context.Context, string) (client.StrongInfo, error) {
	return client.StrongInfo{}, errNoStrong
}

// AddVoter implements client.StrongAdmin.
func (c *Cluster) AddVoter(context.Context, string, string) error { return errNoStrong }

// RemoveVoter implements client.StrongAdmin.
func (c *Cluster) RemoveVoter(context.Context, string, string) error { return errNoStrong }

// Decommission implements client.StrongAdmin.
func (c *Cluster) Decommission(context.Context, string) error { return errNoStrong }

// RecoverKeyspace implements client.StrongAdmin.
func (c *Cluster) RecoverKeyspace(context.Context, string, string) (client.RecoveryReport, error) {
	return client.RecoveryReport{}, errNoStrong
}
