package placement

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Errors of what operators ask for. Match with errors.Is.
var (
	// ErrVoters: a keyspace wants 1, 3 or 5 voters.
	ErrVoters = errors.New("a keyspace has 1, 3 or 5 voters")
	// ErrNoServer: no server can hold a replica.
	ErrNoServer = errors.New("no server can hold a replica")
	// ErrUnknownServer: the catalog has no server of that name.
	ErrUnknownServer = errors.New("unknown server")
	// ErrDraining: the server is being emptied and takes no replica.
	ErrDraining = errors.New("server is draining")
	// ErrBusy: a change of the voters is under way, or the group has not started. Try again.
	ErrBusy = errors.New("another change of the voters is under way")
	// ErrEvenVoters: the number of voters would be even, which survives no more deaths
	// than one less, and there is no server with which it would become odd again.
	ErrEvenVoters = errors.New("the number of voters would stay even")
	// ErrTooManyVoters: there would be more than MaxVoters and one.
	ErrTooManyVoters = errors.New("too many voters")
	// ErrLastVoter: a keyspace has at least one voter.
	ErrLastVoter = errors.New("the last voter cannot be removed")
)

func checkVoters(n int) error {
	if n < 1 || n > MaxVoters || n%2 == 0 {
		return fmt.Errorf("%w, not %d", ErrVoters, n)
	}
	return nil
}

// AddVoter returns k with the change that makes server a voter; k itself if it is one.
//
// An odd number of voters that is reached so is wanted from now on. An even one stays for
// Policy.Settle after the change, for the next command; then Policy.Next adds or removes
// one.
func AddVoter(k Keyspace, server string, servers []Server) (Keyspace, error) {
	i := slices.IndexFunc(servers, func(s Server) bool { return s.Name == server })
	if i < 0 {
		return Keyspace{}, fmt.Errorf("%w: %s", ErrUnknownServer, server)
	}
	r := servers[i].Replica()
	voters := k.voters()
	after := len(voters) + 1
	switch {
	case slices.Contains(voters, r):
		return k, nil
	case servers[i].Draining:
		return Keyspace{}, fmt.Errorf("%w: %s", ErrDraining, server)
	case k.busy():
		return Keyspace{}, ErrBusy
	case slices.ContainsFunc(voters, func(v Replica) bool { return v.Server == server }):
		return Keyspace{}, fmt.Errorf("%w: %s lost its disk and is replaced", ErrBusy, server)
	case after > MaxVoters+1:
		return Keyspace{}, ErrTooManyVoters
	case after%2 == 0 && after < k.Voters && !k.spareWithout(servers, server):
		return Keyspace{}, fmt.Errorf("%w: add another server first", ErrEvenVoters)
	}
	k.Change = &Change{Why: "command: add " + server, Add: []Replica{r}, Command: true}
	k.Avoid = slices.DeleteFunc(slices.Clone(k.Avoid), func(name string) bool { return name == server })
	k.want(after)
	return k, nil
}

// RemoveVoter returns k with the change that removes the voter at server; k itself if there
// is none. The number of voters that is left is treated as by AddVoter; server comes
// last when one is chosen again. To empty a server of all replicas, set its Draining.
func RemoveVoter(k Keyspace, server string, servers []Server) (Keyspace, error) {
	voters := k.voters()
	after := len(voters) - 1
	i := slices.IndexFunc(voters, func(v Replica) bool { return v.Server == server })
	switch {
	case i < 0:
		return k, nil
	case k.busy():
		return Keyspace{}, ErrBusy
	case after == 0:
		return Keyspace{}, ErrLastVoter
	case after%2 == 0 && after < k.Voters && !k.spareWithout(servers, server):
		return Keyspace{}, fmt.Errorf("%w: add another server first, or want fewer voters", ErrEvenVoters)
	}
	k.Change = &Change{Why: "command: remove " + server, Remove: []string{voters[i].ID}, Command: true}
	k.Avoid = append(slices.DeleteFunc(slices.Clone(k.Avoid), func(name string) bool { return name == server }), server)
	k.Avoid = k.Avoid[max(0, len(k.Avoid)-maxAvoid):]
	k.want(after)
	return k, nil
}

// SetVoters returns k with another number of voters wanted, from now on.
func SetVoters(k Keyspace, voters int) (Keyspace, error) {
	if err := checkVoters(voters); err != nil {
		return Keyspace{}, err
	}
	k.Voters, k.Settle = voters, time.Time{}
	return k, nil
}

// want takes the number of voters that a command leads to for what is wanted, if a
// keyspace may want it.
func (k *Keyspace) want(voters int) {
	if checkVoters(voters) == nil {
		k.Voters = voters
	}
}

// busy tells whether k's voters cannot be changed by a command now.
func (k *Keyspace) busy() bool { return k.Change != nil || !k.Started || k.Removed }

// voters are the members with a vote.
func (k *Keyspace) voters() []Replica {
	return slices.DeleteFunc(slices.Clone(k.Members), func(r Replica) bool { return r.Learner })
}

// spareWithout tells whether there is a server, other than the one, that has no replica
// and may take one.
func (k *Keyspace) spareWithout(servers []Server, not string) bool {
	return slices.ContainsFunc(servers, func(s Server) bool {
		holds := slices.ContainsFunc(k.Members, func(r Replica) bool { return r.Server == s.Name })
		return s.Name != not && !s.Draining && !holds
	})
}
