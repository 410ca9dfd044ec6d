package placement

import (
	"math"
	"strconv"
	"time"
)

// A Policy says when voters are replaced. The zero Policy is usable.
type Policy struct {
	// ReplaceAfter is how long a voter's server is dead before the voter is replaced.
	// Shorter moves data for a reboot; longer leaves the keyspace with one failure less
	// to survive. Default 5 min.
	ReplaceAfter time.Duration
	// GiveUpAfter is how long the server of a learner is dead before another one is
	// chosen. Default 30 s.
	GiveUpAfter time.Duration
	// Settle is how long an even number of voters, or one below what is wanted, stays
	// after a command: time for the next command. Default 10 min.
	Settle time.Duration
	// CaughtUp is how many entries behind the leader a learner is promoted at most.
	// Default 256.
	CaughtUp uint64
}

func (p Policy) withDefaults() Policy {
	if p.ReplaceAfter == 0 {
		p.ReplaceAfter = 5 * time.Minute
	}
	if p.GiveUpAfter == 0 {
		p.GiveUpAfter = 30 * time.Second
	}
	if p.Settle == 0 {
		p.Settle = 10 * time.Minute
	}
	if p.CaughtUp == 0 {
		p.CaughtUp = 256
	}
	return p
}

// lookAgain is when a step is looked at again whose end shows only in an Observation.
const lookAgain = time.Second

// An Observation is what the leader of a keyspace's group says of it, of the epoch that
// the entry has. The configuration must be committed, by a leader that confirmed that it
// leads (a read index will do): one that another leader may undo would be recorded as true.
type Observation struct {
	Leader  string // ID of its replica; empty: not known, and the rest does not count
	Index   uint64 // log index of the configuration
	Members []Member
}

// A Member is a replica in the configuration of a group.
type Member struct {
	ID     string
	Server string
	Voter  bool
	Lag    uint64 // entries behind the leader's last one; UnknownLag if it has not answered
}

// UnknownLag is the Lag of a member that the leader has no answer of.
const UnknownLag = math.MaxUint64

// Alive tells whether a server is alive, and since when it is that or is not, as the
// caller knows it.
type Alive func(server string) (alive bool, since time.Time)

// A Step is a kind of Action.
type Step uint8

// The steps. Those at the group are carried out by its leader, only upon the configuration
// at Action.Index. All may be repeated: if the outcome of one is unknown, the next
// Observation tells.
const (
	None           Step = iota
	Record              // write Keyspace into the catalog, if the entry is still the one that was given
	AddLearner          // add Replica to the group, without a vote
	Promote             // give Replica its vote
	Remove              // remove Replica from the group
	TransferLeader      // hand the leadership to Replica
)

var stepNames = [...]string{"none", "record", "add learner", "promote", "remove", "transfer leader"}

// String is the step's name.
func (s Step) String() string {
	if int(s) < len(stepNames) {
		return stepNames[s]
	}
	return "step " + strconv.Itoa(int(s))
}

// A Reason says why nothing is done.
type Reason string

// The reasons.
const (
	Fine       Reason = ""
	NoLeader   Reason = "no leader is known"
	NoQuorum   Reason = "no majority of the voters is alive"
	Outdated   Reason = "what is known of the group is older than the entry"
	NoSpare    Reason = "no server can take another replica"
	Dead       Reason = "a voter is dead, not for long enough to replace it"
	CatchingUp Reason = "a learner catches up"
	Unsafe     Reason = "too few voters would be alive after the next step"
	Settling   Reason = "a command left this number of voters a short time ago"
	Gone       Reason = "the keyspace was removed"
)

// An Action is what to do next for one keyspace.
type Action struct {
	Do       Step
	Keyspace Keyspace // of Record
	Replica  Replica  // of the steps at the group
	Index    uint64   // of the configuration that those steps are meant for
	// Why says why, if Do is None.
	Why Reason
	// Wait is when to look again although nothing that was given has changed, if Do is
	// None; zero: no need to.
	Wait time.Time
}
