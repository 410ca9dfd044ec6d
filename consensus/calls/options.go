package calls

import (
	"context"
	"log/slog"
	"net"
	"time"
)

// Kind says what a call asks for. Its values belong to the users of the package.
type Kind uint8

const (
	// MaxBody is the longest body of a call or an answer, in bytes.
	MaxBody = 5 << 20
	// MaxGroup is the longest name of a group, in bytes.
	MaxGroup = 255
	// MaxDetail is the longest detail of a Refusal, in bytes.
	MaxDetail = 1024
	// maxClusterID is the longest id of a cluster, in bytes.
	maxClusterID = 255
)

// A Handler carries out calls. Serve is called by many goroutines at a time.
//
// ctx ends when the caller's does, at its deadline, or with the connection. body is the
// server's again when Serve returns. The answer, of at most MaxBody bytes, is only read.
// An error that is a *Refusal reaches the caller as such, any other as ErrLost with its
// text.
type Handler interface {
	Serve(ctx context.Context, group string, kind Kind, body []byte) ([]byte, error)
}

// A Sequencer is a Handler that takes some calls in the order in which they came.
//
// Take is called for each call, by the goroutine that reads its connection: it must not
// block. body is the server's again when it returns. If it returns true, it has taken the
// call, and answer must be called once, from anywhere but Take; it waits while too many
// answers do. Otherwise Serve is called.
type Sequencer interface {
	Handler
	Take(group string, kind Kind, body []byte, answer func(body []byte, err error)) bool
}

// A Dialer opens a connection to a node, whose name it was told.
type Dialer func(ctx context.Context, node string) (net.Conn, error)

// Options are those of clients and servers. Nil and zero fields take the defaults.
type Options struct {
	// ClusterID is asked at each greeting; at most 255 bytes, "" if it is not known yet.
	// Default: never known.
	ClusterID func() string
	// MaxCalls is how many calls may be in flight on one connection. Beyond it they end
	// with ErrOverloaded. Default 4,096.
	MaxCalls int
	// MaxBytes bounds, per connection, what a client has queued and not yet written, and
	// the bodies of the calls that a server carries out. One call more than that is
	// taken; beyond it calls end with ErrOverloaded. Default 64 MiB.
	MaxBytes int
	// DialTimeout bounds the opening of a connection with its greeting; a server's half
	// of the greeting, too. Default 5 s.
	DialTimeout time.Duration
	// Silence is after which time without a byte, while calls wait, a connection is tested,
	// and how long the other end has to answer that; then it ends with ErrSilent. Default
	// 2 s.
	Silence time.Duration
	// Ended is called by a client when a connection to a node has ended, after its calls
	// have, and before there is another.
	Ended func(node string)
	// Logger gets debug records. Default: discard.
	Logger *slog.Logger
}

func (o *Options) orDefaults() Options {
	var got Options
	if o != nil {
		got = *o
	}
	if got.ClusterID == nil {
		got.ClusterID = func() string { return "" }
	}
	if got.MaxCalls <= 0 {
		got.MaxCalls = 4096
	}
	if got.MaxBytes <= 0 {
		got.MaxBytes = 64 << 20
	}
	if got.DialTimeout <= 0 {
		got.DialTimeout = 5 * time.Second
	}
	if got.Ended == nil {
		got.Ended = func(string) {}
	}
	if got.Silence <= 0 {
		got.Silence = 2 * time.Second
	}
	if got.Logger == nil {
		got.Logger = slog.New(slog.DiscardHandler)
	}
	return got
}
