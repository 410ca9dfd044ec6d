package client

import (
	"errors"
	"fmt"
	"strconv"
)

// An AckPolicy says how many members of an eventual keyspace must have a write
// before it is acknowledged: a positive number of them, or one of the constants.
// The serving node counts as one. The zero value is AcksLocal.
//
// With Durable, each member that is counted has the write on its disk; without, in
// memory at least. A node that keeps nothing on disk is never counted there.
//
// A number beyond the members that there are is ErrBadRequest, and nothing was
// written. A write that is not acknowledged in time is a WriteConcernError: it was
// made, is not taken back, and goes on spreading.
type AckPolicy int

// The policies that are no numbers. They count the members that are registered for
// the keyspace, failed ones included, until they have left or were reaped.
const (
	AcksLocal  AckPolicy = 0  // the serving node alone, as 1
	AcksQuorum AckPolicy = -1 // more than half of the members
	AcksAll    AckPolicy = -2 // every member
)

// MaxAcks is the largest number of members that an AckPolicy can ask for.
const MaxAcks = 4096

// ErrWriteConcern is matched by WriteConcernError.
var ErrWriteConcern = errors.New("write concern not met")

// A WriteConcernError says that a write was made at the serving node and that fewer
// members than asked for acknowledged it before the deadline. It goes on spreading:
// it is not a write that failed. It matches ErrWriteConcern.
type WriteConcernError struct {
	Acked int // members that did, the serving node among them
	Want  int // members asked for; 0: the serving node did not know yet who is a member
}

func (e *WriteConcernError) Error() string {
	if e.Want == 0 {
		return fmt.Sprintf("%v: the node does not know yet how many members there are, %d acknowledged; the write was made and goes on spreading: raise the timeout, or look at meshkv members",
			ErrWriteConcern, e.Acked)
	}
	return fmt.Sprintf("%v: %d of %d members acknowledged in time; the write was made and goes on spreading: raise the timeout, look at meshkv members, or remove nodes that are gone with meshkv force-leave",
		ErrWriteConcern, e.Acked, e.Want)
}

// Unwrap makes it match ErrWriteConcern.
func (e *WriteConcernError) Unwrap() error { return ErrWriteConcern }

// Waits reports whether other members than the serving node are asked for.
func (p AckPolicy) Waits() bool { return p != AcksLocal && p != 1 }

// Need is the number of members asked for where there are so many.
func (p AckPolicy) Need(members int) int {
	switch {
	case p == AcksQuorum:
		return members/2 + 1
	case p == AcksAll:
		return members
	}
	return max(1, int(p))
}

// Check refuses what is no policy. The error matches ErrBadRequest.
func (p AckPolicy) Check() error {
	if p < AcksAll || p > MaxAcks {
		return fmt.Errorf("%w: acks is local, quorum, all or 1 to %d members, not %d", ErrBadRequest, MaxAcks, int(p))
	}
	return nil
}

// LocalOnly refuses a policy on a strong keyspace, which commits every write on the
// disks of a majority of its voters, and so offers no other. The error matches
// ErrNeedsEventual.
func (p AckPolicy) LocalOnly() error {
	if p != AcksLocal {
		return fmt.Errorf("%w: acks=%s; every write is on the disks of a majority of the voters when it is answered: leave acks out", ErrNeedsEventual, p)
	}
	return nil
}

// String is how the CLI and HTTP write p.
func (p AckPolicy) String() string {
	switch p {
	case AcksLocal:
		return "local"
	case AcksQuorum:
		return "quorum"
	case AcksAll:
		return "all"
	}
	return strconv.Itoa(int(p))
}

// ParseAcks is the inverse of String. Empty is AcksLocal. The error matches
// ErrBadRequest.
func ParseAcks(s string) (AckPolicy, error) {
	switch s {
	case "", "local":
		return AcksLocal, nil
	case "quorum":
		return AcksQuorum, nil
	case "all":
		return AcksAll, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || n > MaxAcks {
		return 0, fmt.Errorf("%w: acks is local, quorum, all or 1 to %d members, not %s", ErrBadRequest, MaxAcks, strconv.Quote(s))
	}
	return AckPolicy(n), nil
}

// acksNumber is p on the wire: 0 local, 1 quorum, 2 all, then the numbers.
func acksNumber(p AckPolicy) uint64 {
	if p > 0 {
		return uint64(p) + 2
	}
	return uint64(-p)
}

// AcksOf is the policy that a request carries. One that is none is found by Check.
func AcksOf(u uint64) AckPolicy {
	switch {
	case u <= 2:
		return -AckPolicy(u)
	case u > MaxAcks+2:
		return MaxAcks + 1
	}
	return AckPolicy(u - 2)
}
