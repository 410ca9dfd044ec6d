package calls

import (
	"errors"
	"fmt"
)

// Errors of calls. Match with errors.Is.
var (
	// ErrNotSent: the call was certainly not delivered, and may be made again, anywhere.
	ErrNotSent = errors.New("not sent")
	// ErrOverloaded: too much is in flight to that node, or there. It matches ErrNotSent.
	ErrOverloaded = fmt.Errorf("%w: overloaded", ErrNotSent)
	// ErrClosed: the client is closed. It matches ErrNotSent.
	ErrClosed = fmt.Errorf("%w: %w", ErrNotSent, errClosed)
	// ErrLost: the call was sent and no answer came, or its handler failed: it may have
	// been carried out, or be so later.
	ErrLost = errors.New("no answer")
	// ErrInvalid: the body or the name of the group is too long. It was not sent, and
	// cannot be.
	ErrInvalid = errors.New("invalid call")
)

// Why a connection ended, beside the errors of net and io. They come with ErrNotSent or
// ErrLost from Call, and alone from ServeConn.
var (
	// ErrCluster: the other node belongs to another cluster.
	ErrCluster = errors.New("node of another cluster")
	// ErrVersion: the other node speaks another version of the protocol.
	ErrVersion = errors.New("unknown version of the protocol")
	// ErrMalformed: what came is not of the protocol.
	ErrMalformed = errors.New("malformed frame")
	// ErrSilent: calls waited and the other node did not answer a ping.
	ErrSilent = errors.New("node is silent")
)

// A Refusal is an answer of a Handler that reaches the caller as this error. What the
// codes mean is up to the users of the package.
type Refusal struct {
	Code uint8
	// Detail is cut after MaxDetail bytes.
	Detail string
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused with code %d: %s", r.Code, r.Detail) }

// errClosed is why the connections of a closed client ended; some calls were sent.
var errClosed = errors.New("client is closed")

func notSent(why error) error { return fmt.Errorf("%w: %w", ErrNotSent, why) }

func lost(why error) error { return fmt.Errorf("%w: %w", ErrLost, why) }
