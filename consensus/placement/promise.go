package placement

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Errors of the first start of the system group. Match with errors.Is; the typed errors
// have the details.
var (
	// ErrListSize: the list has not 1, 3 or 5 servers, or one of them twice.
	ErrListSize = errors.New("the list of servers has to name 1, 3 or 5 different ones")
	// ErrNotListed: this server is not on the list that it was given.
	ErrNotListed = errors.New("this server is not on its list of servers")
	// ErrListsDiffer: another server was given another list, or this one was when it
	// promised. See ListError.
	ErrListsDiffer = errors.New("the lists of servers differ")
	// ErrDiskLost: a server that is named in a promise has another disk. See DiskError.
	ErrDiskLost = errors.New("a server lost its disk")
	// ErrPromised: another server promised another set of disks. See PromiseError.
	ErrPromised = errors.New("servers promised different systems")
	// ErrDamagedPromise: what was stored is no promise of this server.
	ErrDamagedPromise = errors.New("damaged promise")
)

// A ListError names two servers with different lists.
type ListError struct {
	Server, Other         string // equal, if a server's list differs from the one that it promised
	ServerList, OtherList []string
}

// Error names both lists.
func (e *ListError) Error() string {
	mine, other := strings.Join(e.ServerList, ","), strings.Join(e.OtherList, ",")
	if e.Server == e.Other {
		return fmt.Sprintf("%v: %s is given [%s], but promised [%s] before: give it that list again, or, if the system was never started anywhere, an empty data directory", ErrListsDiffer, e.Server, mine, other)
	}
	return fmt.Sprintf("%v: %s is given [%s], %s is given [%s]: give all the same list", ErrListsDiffer, e.Server, mine, e.Other, other)
}

// Unwrap is ErrListsDiffer.
func (e *ListError) Unwrap() error { return ErrListsDiffer }

// A DiskError names a server that came with another disk than was promised.
type DiskError struct {
	Server            string
	Promised, Present string // disks
}

// Error says what the operator can do.
func (e *DiskError) Error() string {
	return fmt.Sprintf("%v: %s was promised with disk %s and has disk %s. If the system runs on any listed server, leave this: %s is added again by it. If it never ran, give every listed server an empty data directory and start all again",
		ErrDiskLost, e.Server, e.Promised, e.Present, e.Server)
}

// Unwrap is ErrDiskLost.
func (e *DiskError) Unwrap() error { return ErrDiskLost }

// A PromiseError names a server whose promise is another one.
type PromiseError struct {
	Other        string
	Mine, Theirs []Identity
}

// Error says what the operator can do.
func (e *PromiseError) Error() string {
	return fmt.Sprintf("%v: this server promised %v, %s promised %v: one of them is of an earlier start. Give an empty data directory to every listed server whose promise names a disk that is gone, and start these again; if the system runs on any, to no server of it",
		ErrPromised, e.Mine, e.Other, e.Theirs)
}

// Unwrap is ErrPromised.
func (e *PromiseError) Unwrap() error { return ErrPromised }

// An Identity is a server with the disk that it has now.
type Identity struct {
	Name string `json:"name"`
	Disk string `json:"disk"`
}

// String is the ID of the server's replicas.
func (i Identity) String() string { return i.Name + "/" + i.Disk }

// A Promise is a server's word to begin the system group with these servers on these disks,
// and with no others ever. It is on the disk before it is told to anybody.
type Promise struct {
	Servers []Identity `json:"servers"` // sorted by name
	Cluster string     `json:"cluster"` // ClusterID of Servers
}

// newPromise is the promise of the servers.
func newPromise(servers []Identity) *Promise {
	servers = slices.SortedFunc(slices.Values(servers), func(a, b Identity) int { return strings.Compare(a.Name, b.Name) })
	return &Promise{Servers: servers, Cluster: ClusterID(servers)}
}

// ClusterID is the id of the cluster whose system group begins with servers, which are
// sorted by name: 32 hex digits of the SHA-256 of their names and disks, each behind its
// length. Clusters with different ids have nothing to do with each other.
func ClusterID(servers []Identity) string {
	var b []byte
	for _, s := range servers {
		for _, part := range []string{s.Name, s.Disk} {
			b = binary.AppendUvarint(b, uint64(len(part)))
			b = append(b, part...)
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// names are those of the promise's servers.
func (p *Promise) names() []string {
	names := make([]string, len(p.Servers))
	for i, s := range p.Servers {
		names[i] = s.Name
	}
	return names
}

// disk is the one that the promise names for a server.
func (p *Promise) disk(name string) (string, bool) {
	for _, s := range p.Servers {
		if s.Name == name {
			return s.Disk, true
		}
	}
	return "", false
}

// valid tells whether p can be a promise of the server.
func (p *Promise) valid(of Identity) bool {
	sorted := slices.IsSortedFunc(p.Servers, func(a, b Identity) int { return strings.Compare(a.Name, b.Name) })
	return sorted && slices.Contains(p.Servers, of) && checkList(p.names()) == nil && p.Cluster == ClusterID(p.Servers)
}

// checkList checks a sorted list of servers.
func checkList(list []string) error {
	if different := len(slices.Compact(slices.Clone(list))); different != len(list) || checkVoters(different) != nil {
		return fmt.Errorf("%w: [%s]", ErrListSize, strings.Join(list, ","))
	}
	return nil
}
