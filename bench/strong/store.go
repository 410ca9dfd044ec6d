package main

import (
	"context"
	"errors"
)

// mainSpace is the keyspace of all cells that need one alone.
const mainSpace = "bench"

// errNotOffered: the system has no such thing, or not in a form that can be compared.
var errNotOffered = errors.New("not offered")

// errNoLeader: no member leads at the moment.
var errNoLeader = errors.New("no leader")

// A place is where a call goes.
type place struct {
	member int // whose connection is used, from 0
	space  string
}

// A store is a running cluster as its clients see it. The connections to all members
// are shared by all clients. Safe for concurrent use.
type store interface {
	// create makes keyspaces that are groups of their own.
	create(ctx context.Context, spaces []string) error
	put(ctx context.Context, at place, key string, value []byte) error
	get(ctx context.Context, at place, key string) ([]byte, error)
	// leader is the number of the member that leads mainSpace.
	leader(ctx context.Context) (int, error)
	// locker begins a session of a client at a member.
	locker(ctx context.Context, member int) (locker, error)
	close()
}

// A locker is a client that takes locks. Used by one goroutine.
type locker interface {
	lock(ctx context.Context, name string) (unlock func(context.Context) error, err error)
	close()
}
