package api

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
)

// contents is what a keyspace can be asked without making it. Keyspaces are
// made at every node and there is a bound to them: only what stores something,
// and a watch, which waits for it, make one.
type contents interface {
	Get(ctx context.Context, key string, o *client.GetOptions) (client.Entry, error)
	View(ctx context.Context, key string, o *client.GetOptions) (client.View, error)
	Elements(ctx context.Context, key string, o *client.ElementsOptions) iter.Seq2[client.Element, error]
	Delete(ctx context.Context, key string, o *client.DeleteOptions) (client.Deletion, error)
	List(ctx context.Context, prefix string, o *client.ListOptions) iter.Seq2[client.Entry, error]
	Info(ctx context.Context) (client.KeyspaceInfo, error)
	Digest(ctx context.Context) (client.Digest, error)
}

// contents looks a keyspace up; one that the node does not hold is empty.
func (s *Server) contents(name string) (contents, error) {
	ks, err := s.backend.Lookup(name)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return absent{s.backend, name}, nil
	case err != nil:
		return nil, err
	}
	return ks, nil
}

// absent answers for a keyspace that the node does not hold, as an empty one
// would; only Info says that there is none.
type absent struct {
	backend Backend
	name    string
}

// absentInterval is the time between two looks for a keyspace that a token says
// is on its way.
const absentInterval = 10 * time.Millisecond

// maxKey is the longest key.
const maxKey = 1024

func checkKey(key string) error {
	if len(key) == 0 || len(key) > maxKey {
		return fmt.Errorf("%w: a key has 1 to %d bytes, this one has %d", client.ErrBadRequest, maxKey, len(key))
	}
	return nil
}

// Get finds nothing. With a token, somebody has written to the keyspace: it
// waits until that has made it here.
func (a absent) Get(ctx context.Context, key string, o *client.GetOptions) (client.Entry, error) {
	switch err := checkKey(key); {
	case err != nil:
		return client.Entry{}, err
	case o.Linearizable, o.Revision != 0:
		return client.Entry{}, a.needsStrong()
	case o.After == "":
		return client.Entry{}, client.ErrNotFound
	}
	ks, err := a.arrival(ctx, o.After)
	if err != nil {
		return client.Entry{}, err
	}
	return ks.Get(ctx, key, o)
}

// arrival waits until the keyspace has been made here.
func (a absent) arrival(ctx context.Context, token client.Token) (client.Keyspace, error) {
	if v, err := client.ParseVersion(string(token)); err != nil || v.Inc == 0 {
		return nil, fmt.Errorf("%w: token %q is not one that meshkv gave", client.ErrBadRequest, token)
	}
	tick := time.NewTicker(absentInterval)
	defer tick.Stop()
	for {
		if ks, err := a.backend.Lookup(a.name); err == nil {
			return ks, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: keyspace %s is not here yet", client.ErrNotCaughtUp, a.name)
		}
	}
}

// needsStrong refuses what no eventual keyspace offers; a strong one would be known.
func (a absent) needsStrong() error {
	return fmt.Errorf("%w: there is no strong keyspace %s; an eventual one has neither conditions, linearizable reads nor revisions: create it with mode strong",
		client.ErrNeedsStrong, a.name)
}

func (a absent) Delete(_ context.Context, key string, o *client.DeleteOptions) (client.Deletion, error) {
	if !o.IfVersion.IsZero() {
		return client.Deletion{}, a.needsStrong()
	}
	if err := o.Acks.Check(); err != nil {
		return client.Deletion{}, err
	}
	return client.Deletion{}, checkKey(key)
}

func (a absent) List(_ context.Context, _ string, o *client.ListOptions) iter.Seq2[client.Entry, error] {
	return func(yield func(client.Entry, error) bool) {
		if o.Revision != 0 {
			yield(client.Entry{}, a.needsStrong())
		}
	}
}

func (a absent) Info(context.Context) (client.KeyspaceInfo, error) {
	return client.KeyspaceInfo{}, fmt.Errorf("%w: this node holds no keyspace %s; it comes into being with its first put", client.ErrNotFound, a.name)
}

// emptyDigest is the digest, and the clock, of a keyspace without any write.
var emptyDigest = strings.Repeat("0", 24)

func (a absent) Digest(context.Context) (client.Digest, error) {
	return client.Digest{Keyspace: a.name, Digest: emptyDigest, Clock: emptyDigest}, nil
}
