package placement

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxVoters is the largest number of voters that a keyspace may want.
const MaxVoters = 5

// A Server is a node that may hold replicas. Its key in the catalog is "servers/" and
// its name.
type Server struct {
	Name string `json:"name"`
	// Disk names the data directory, made at random with it: a server that lost its disk
	// comes back under another one.
	Disk string `json:"disk"`
	Zone string `json:"zone,omitempty"` // "" is a zone like any other
	// Draining: it gets no replica, and those that it has are moved away.
	Draining bool `json:"draining,omitempty"`
}

// Replica is the replica of a group that the server holds, or would.
func (s Server) Replica() Replica {
	return Replica{Server: s.Name, ID: s.Name + "/" + s.Disk}
}

// NodeOf is the server in the ID of a replica.
func NodeOf(id string) string {
	if i := strings.LastIndexByte(id, '/'); i >= 0 {
		return id[:i]
	}
	return id
}

// A Replica is one member of a group.
type Replica struct {
	Server string `json:"server"`
	// ID is the server's name, a slash and its disk. A disk that was lost never comes
	// back under its ID, so no vote is given twice.
	ID      string `json:"id"`
	Learner bool   `json:"learner,omitempty"` // it receives the log and has no vote
}

// A Keyspace is the entry of one strong keyspace in the catalog; its key there is
// "keyspaces/" and its name. The system group has one, too.
//
// An entry that was removed stays, so that the next keyspace of that name takes a higher
// Gen, and no group begins twice.
type Keyspace struct {
	Name  string `json:"name"`
	Gen   uint64 `json:"gen"`   // counts the keyspaces of this name
	Epoch uint64 `json:"epoch"` // counts the recoveries of this one
	// Voters is how many there shall be: 1, 3 or 5. There are fewer while there are not
	// enough servers.
	Voters int    `json:"voters"`
	Quota  uint64 `json:"quota,omitempty"` // bytes; 0 is the default of the host
	// Initial are the voters who begin the group, with just this configuration.
	Initial []Replica `json:"initial"`
	// Started: the group was seen with a leader. From then on nobody begins it: a replica
	// that was removed and comes back with an empty log would form a second group with
	// others like it.
	Started bool `json:"started,omitempty"`
	// Members are those of the group's configuration at Index, as last recorded, sorted by
	// ID; Initial before it has started.
	Members []Replica `json:"members"`
	Index   uint64    `json:"index,omitempty"`
	Removed bool      `json:"removed,omitempty"`
	// Change is the one that is under way.
	Change *Change `json:"change,omitempty"`
	// Settle is until when a number of voters that a command left is not corrected.
	Settle time.Time `json:"settle,omitzero"`
	// Avoid are servers that a command removed from the voters: they come last when a
	// voter is chosen. The newest maxAvoid are kept.
	Avoid []string `json:"avoid,omitempty"`
}

// maxAvoid bounds Keyspace.Avoid.
const maxAvoid = 8

// A Change leads from one set of voters to another, in steps of one member: all of Add
// become learners and catch up, then each is promoted, then Remove go, one by one.
type Change struct {
	Why    string    `json:"why"` // for operators
	Add    []Replica `json:"add,omitempty"`
	Remove []string  `json:"remove,omitempty"` // IDs of replicas
	// Command: somebody asked for it. The number of voters it ends with is left alone
	// for Policy.Settle.
	Command bool `json:"command,omitempty"`
}

// Group is the id of the keyspace's Raft group. It is never used again: a keyspace that
// was created anew, or recovered, has another one, and one that was recovered by another server, too.
func (k *Keyspace) Group() string {
	id := k.Name + "#" + strconv.FormatUint(k.Gen, 10) + "." + strconv.FormatUint(k.Epoch, 10)
	if k.Epoch > 0 && len(k.Initial) == 1 {
		// Two servers may have been asked to recover it: what they make are two groups.
		_, disk, _ := strings.Cut(k.Initial[0].ID, "/")
		id += "-" + disk
	}
	return id
}

// A Duty is what a server has to do with a keyspace.
type Duty uint8

// The duties.
const (
	Absent Duty = iota // it holds no replica; one that it has may be deleted
	Join               // it runs a replica, which begins nothing: the leader sends what it needs
	Begin              // it runs a replica, and begins the group with Initial if its log is empty
)

// String is the duty's name.
func (d Duty) String() string {
	switch d {
	case Absent:
		return "absent"
	case Join:
		return "join"
	case Begin:
		return "begin"
	}
	return "duty " + strconv.Itoa(int(d))
}

// Duty is what self has to do with k. A server whose disk is not the one that the entry
// names is Absent until it was added under its new ID: it never begins a group.
//
// k must be at least as new as every entry of the keyspace that self acted upon. With an
// older copy a server could begin a group that it was removed from since.
func (k *Keyspace) Duty(self Server) Duty {
	is := func(r Replica) bool { return r.ID == self.Replica().ID }
	switch {
	case k.Removed:
		return Absent
	case !k.Started && slices.ContainsFunc(k.Initial, is):
		return Begin
	case slices.ContainsFunc(k.Members, is), k.Change != nil && slices.ContainsFunc(k.Change.Add, is):
		return Join
	}
	return Absent
}

// Place returns k, a keyspace to be created, with those who begin it: as many voters as it
// wants, or the next smaller odd number if servers has fewer that may hold a replica.
// The caller leaves out servers that are dead. ErrVoters and ErrNoServer are possible.
func Place(k Keyspace, servers []Server) (Keyspace, error) {
	if err := checkVoters(k.Voters); err != nil {
		return Keyspace{}, err
	}
	chosen := Choose(k.Name, servers, k.Voters)
	if len(chosen) == 0 {
		return Keyspace{}, ErrNoServer
	}
	chosen = chosen[:odd(len(chosen))]
	k.Initial = make([]Replica, len(chosen))
	for i, s := range chosen {
		k.Initial[i] = s.Replica()
	}
	return k.begun(k.Initial), nil
}

// Recover returns k as it goes on after the majority of its voters was lost for good, with
// survivor as its only voter, in a new epoch. The voters that were lost are not members
// of the new group, whatever they come back with; Policy.Next adds others.
//
// The survivor does not begin the new group (its Duty is Join): its replica is given
// the new configuration by the recovery itself.
func Recover(k Keyspace, survivor Replica) Keyspace {
	k.Epoch++
	survivor.Learner = false
	k.Initial = []Replica{survivor}
	k = k.begun(k.Initial)
	k.Started = true
	return k
}

// begun is k with the members that it has at its beginning, and nothing under way.
func (k Keyspace) begun(members []Replica) Keyspace {
	k.Members = sortedByID(members)
	k.Started, k.Index, k.Change, k.Settle = false, 0, nil, time.Time{}
	return k
}

func sortedByID(replicas []Replica) []Replica {
	return slices.SortedFunc(slices.Values(replicas), func(a, b Replica) int { return strings.Compare(a.ID, b.ID) })
}

// odd is the largest odd number up to n, which is positive.
func odd(n int) int { return n - 1 + n%2 }
