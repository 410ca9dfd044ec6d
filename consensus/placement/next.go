package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Next says what to do next for the keyspace k. observed is what its group says, servers
// are all of the catalog.
//
// A voter is replaced if its server is dead for ReplaceAfter, drains, has another disk or
// is in the catalog no longer. The new replica is a learner until it caught up; the old
// one goes after the new one votes, so there are never fewer voters than before. One
// Change is under way at a time, recorded before its first step. Nothing is done
// without a majority of voters alive, and no step that would leave none. Live voters
// of servers that are fine are not moved: a server that joins takes replicas only where
// some are missing.
func (p Policy) Next(now time.Time, k Keyspace, observed Observation, servers []Server, alive Alive) Action {
	v := newView(p.withDefaults(), now, k, observed, servers, alive)
	switch {
	case k.Removed:
		return Action{Why: Gone}
	case observed.Leader == "" || len(v.voters) == 0:
		return v.wait(NoLeader, lookAgain)
	case observed.Index < k.Index:
		return v.wait(Outdated, lookAgain)
	}
	if recorded, changed := v.recorded(); changed {
		return Action{Do: Record, Keyspace: recorded}
	}
	if !v.majority(v.voters) {
		return v.wait(NoQuorum, lookAgain)
	}
	if k.Change != nil {
		return v.proceed(*k.Change)
	}
	return v.begin()
}

// A view is one look at a keyspace.
type view struct {
	Policy
	now      time.Time
	k        Keyspace
	observed Observation
	servers  map[string]Server
	names    []string // of servers, sorted
	alive    Alive
	voters   []Member // sorted by ID
}

func newView(p Policy, now time.Time, k Keyspace, observed Observation, servers []Server, alive Alive) *view {
	v := &view{Policy: p, now: now, k: k, observed: observed, servers: make(map[string]Server, len(servers)), alive: alive}
	for _, s := range servers {
		v.servers[s.Name] = s
		v.names = append(v.names, s.Name)
	}
	slices.Sort(v.names)
	v.observed.Members = slices.SortedFunc(slices.Values(observed.Members), func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	for _, m := range v.observed.Members {
		if m.Voter {
			v.voters = append(v.voters, m)
		}
	}
	return v
}

func (v *view) wait(why Reason, d time.Duration) Action {
	return Action{Why: why, Wait: v.now.Add(d)}
}

func (v *view) member(id string) (Member, bool) {
	i := slices.IndexFunc(v.observed.Members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return v.observed.Members[i], true
}

// recorded is the entry with what was observed, and whether that is news.
func (v *view) recorded() (k Keyspace, changed bool) {
	k = v.k
	if !k.Started || v.observed.Index != k.Index {
		changed = true
		k.Started, k.Index, k.Members = true, v.observed.Index, nil
		for _, m := range v.observed.Members {
			k.Members = append(k.Members, Replica{Server: m.Server, ID: m.ID, Learner: !m.Voter})
		}
	}
	if k.Change != nil && v.complete(*k.Change) {
		changed = true
		k.Settle = time.Time{}
		if k.Change.Command && len(v.voters) != k.Voters {
			k.Settle = v.now.Add(v.Settle)
		}
		k.Change = nil
	}
	return k, changed
}

func (v *view) complete(c Change) bool {
	for _, r := range c.Add {
		if m, ok := v.member(r.ID); !ok || !m.Voter {
			return false
		}
	}
	return !slices.ContainsFunc(c.Remove, func(id string) bool { _, ok := v.member(id); return ok })
}

// works tells whether the member can take part: its server is alive, and with its disk.
func (v *view) works(m Member) bool {
	if s, ok := v.servers[m.Server]; ok && s.Replica().ID != m.ID {
		return false
	}
	alive, _ := v.alive(m.Server)
	return alive
}

// majority tells whether more than half of voters work.
func (v *view) majority(voters []Member) bool {
	working := 0
	for _, m := range voters {
		if v.works(m) {
			working++
		}
	}
	return 2*working > len(voters)
}

// proceed takes the next step of a change.
func (v *view) proceed(c Change) Action {
	if given, ok := v.giveUp(c); ok {
		return v.record(&given)
	}
	why := Fine
	for _, r := range c.Add {
		m, ok := v.member(r.ID)
		switch {
		case !ok:
			return v.step(AddLearner, r)
		case !m.Voter && (m.Lag > v.CaughtUp || !v.works(m)):
			why = CatchingUp
		}
	}
	if why != Fine {
		return v.wait(why, lookAgain)
	}
	// A majority is alive, and so is r: one is alive afterwards, too.
	for _, r := range c.Add {
		if m, _ := v.member(r.ID); !m.Voter {
			return v.step(Promote, r)
		}
	}
	return v.removeOne(c)
}

// removeOne takes the last kind of step of a change: of those to remove, the first without
// which a majority is alive.
//
// If there is none because voters that stay are broken, the rest of the change is
// dropped, so that these can be replaced first: what is needed of it is found again,
// except that a command may have to be given again.
func (v *view) removeOne(c Change) Action {
	for _, id := range c.Remove {
		m, ok := v.member(id)
		rest := slices.DeleteFunc(slices.Clone(v.voters), func(o Member) bool { return o.ID == id })
		if !ok || !v.majority(rest) {
			continue
		}
		if id != v.observed.Leader {
			return v.step(Remove, Replica{Server: m.Server, ID: id})
		}
		if to, ok := v.successor(c); ok {
			return v.step(TransferLeader, to)
		}
	}
	broken, _ := v.broken()
	if slices.ContainsFunc(broken, func(f fault) bool { return !slices.Contains(c.Remove, f.ID) }) {
		return v.record(nil)
	}
	return v.wait(Unsafe, lookAgain)
}

// step is an action at the group.
func (v *view) step(do Step, r Replica) Action {
	return Action{Do: do, Replica: Replica{Server: r.Server, ID: r.ID}, Index: v.observed.Index}
}

// record is the action that makes c the change that is under way, if it is not nil.
func (v *view) record(c *Change) Action {
	k := v.k
	k.Change = c
	return Action{Do: Record, Keyspace: k}
}

// successor is the voter with the least lag that works and stays.
func (v *view) successor(c Change) (Replica, bool) {
	var best *Member
	for i, m := range v.voters {
		if v.works(m) && !slices.Contains(c.Remove, m.ID) && (best == nil || m.Lag < best.Lag) {
			best = &v.voters[i]
		}
	}
	if best == nil {
		return Replica{}, false
	}
	return Replica{Server: best.Server, ID: best.ID}, true
}

// giveUp is the change without those additions that will not come to vote: they are
// removed, in case that they were added, and so is nobody else in exchange for them.
func (v *view) giveUp(c Change) (Change, bool) {
	given := Change{Why: c.Why, Command: c.Command}
	for _, r := range c.Add {
		if m, ok := v.member(r.ID); ok && m.Voter || !v.hopeless(r) {
			given.Add = append(given.Add, r)
		} else {
			given.Remove = append(given.Remove, r.ID)
		}
	}
	keep := len(given.Remove)
	if keep == 0 {
		return Change{}, false
	}
	given.Why += ", without " + strings.Join(given.Remove, ", ")
	// A member without a vote replaces nobody and is removed in any case.
	for _, id := range c.Remove {
		if m, ok := v.member(id); ok && m.Voter && keep > 0 {
			keep--
			continue
		}
		given.Remove = append(given.Remove, id)
	}
	return given, true
}

// hopeless tells whether a replica that does not vote yet shall not be waited for.
func (v *view) hopeless(r Replica) bool {
	s, ok := v.servers[r.Server]
	if !ok || s.Draining || s.Replica().ID != r.ID {
		return true
	}
	alive, since := v.alive(r.Server)
	return !alive && v.now.Sub(since) >= v.GiveUpAfter
}

// begin looks for a change that is needed.
func (v *view) begin() Action {
	var strays []string
	for _, m := range v.observed.Members {
		if !m.Voter {
			strays = append(strays, m.ID)
		}
	}
	if len(strays) > 0 {
		return v.record(&Change{Why: "learners that no change needs", Remove: strays})
	}
	if a := v.shrink(); a.Do == Record {
		return a
	}
	broken, later := v.broken()
	for _, b := range broken {
		if s, ok := v.replacement(b.Member); ok {
			return v.record(&Change{Why: b.why, Add: []Replica{s.Replica()}, Remove: []string{b.ID}})
		}
	}
	a := v.grow()
	if a.Do == None && a.Why == Fine {
		if len(broken) > 0 {
			a.Why = NoSpare
		} else if !later.IsZero() {
			a.Why = Dead
		}
	}
	if a.Do == None && !later.IsZero() && (a.Wait.IsZero() || later.Before(a.Wait)) {
		a.Wait = later
	}
	return a
}

// A fault is why a voter has to be replaced; the gravest come first.
type fault struct {
	Member
	grade int
	why   string
}

// broken are the voters to replace, the most urgent first, and when the next one will
// have been dead for long enough.
func (v *view) broken() (broken []fault, later time.Time) {
	for _, m := range v.voters {
		s, listed := v.servers[m.Server]
		alive, since := v.alive(m.Server)
		switch due := since.Add(v.ReplaceAfter); {
		case listed && s.Replica().ID != m.ID:
			broken = append(broken, fault{m, 0, "server " + m.Server + " has another disk"})
		case !listed:
			broken = append(broken, fault{m, 1, "server " + m.Server + " was removed from the catalog"})
		case !alive && !v.now.Before(due):
			broken = append(broken, fault{m, 2, "server " + m.Server + " is dead"})
		case s.Draining:
			broken = append(broken, fault{m, 3, "server " + m.Server + " is draining"})
		case !alive && (later.IsZero() || due.Before(later)):
			later = due
		}
	}
	slices.SortStableFunc(broken, func(a, b fault) int { return cmp.Compare(a.grade, b.grade) })
	return broken, later
}

// spares are the servers that could hold one replica more of the group.
func (v *view) spares() (spares []Server) {
	for _, name := range v.names {
		holds := slices.ContainsFunc(v.observed.Members, func(m Member) bool { return m.Server == name })
		if alive, _ := v.alive(name); alive && !holds && !v.servers[name].Draining {
			spares = append(spares, v.servers[name])
		}
	}
	return spares
}

// replacement is the server that takes the place of a voter: the same one if only its
// disk is another.
func (v *view) replacement(m Member) (Server, bool) {
	if s, ok := v.servers[m.Server]; ok && s.Replica().ID != m.ID && !s.Draining {
		if alive, _ := v.alive(m.Server); alive {
			return s, true
		}
	}
	chosen := v.choose(v.spares(), 1, m.ID)
	if len(chosen) == 0 {
		return Server{}, false
	}
	return chosen[0], true
}

// choose chooses among spares, beside the members that there are without one.
func (v *view) choose(spares []Server, n int, without string) []Server {
	zones := map[string]int{}
	for _, m := range v.observed.Members {
		if s, ok := v.servers[m.Server]; ok && m.ID != without {
			zones[s.Zone]++
		}
	}
	return choose(v.k.Name, spares, n, zones, v.k.Avoid)
}

// settling tells whether the number of voters is to stay as a command left it, and for
// how long. It never is for longer than Settle: a clock may have been set back.
func (v *view) settling() (left time.Duration, yes bool) {
	left = v.k.Settle.Sub(v.now)
	return left, left > 0 && left <= v.Settle
}

// shrink removes voters beyond what is wanted. It comes before the replacement of broken
// ones, which go first.
func (v *view) shrink() Action {
	surplus := len(v.voters) - v.k.Voters
	if _, settling := v.settling(); surplus <= 0 || settling {
		return Action{}
	}
	return v.record(&Change{Why: fmt.Sprintf("%d voters are wanted", v.k.Voters), Remove: v.surplus(surplus)})
}

// grow adds voters up to what is wanted, as far as there are servers.
//
// An even number below that stays when no server is left: it survives as many deaths as
// the odd number below it, so nothing is gained by removing one.
func (v *view) grow() Action {
	have := len(v.voters)
	if have == v.k.Voters {
		return Action{}
	}
	if left, settling := v.settling(); settling {
		return v.wait(Settling, left)
	}
	spares := v.spares()
	target := odd(min(v.k.Voters, have+len(spares)))
	if target <= have {
		return Action{Why: NoSpare}
	}
	c := Change{Why: fmt.Sprintf("%d voters are wanted", v.k.Voters)}
	for _, s := range v.choose(spares, target-have, "") {
		c.Add = append(c.Add, s.Replica())
	}
	return v.record(&c)
}

// surplus are the n voters that can best be done without: those that do not work or whose
// server drains, then those that would be chosen last.
func (v *view) surplus(n int) []string {
	var good []Server
	for _, m := range v.voters {
		if s, ok := v.servers[m.Server]; ok && v.works(m) && !s.Draining {
			good = append(good, s)
		}
	}
	kept := choose(v.k.Name, good, len(v.voters)-n, nil, v.k.Avoid)
	var ids []string
	// Not working ones first; a second round takes the others that were not kept.
	for _, working := range []bool{false, true} {
		for _, m := range v.voters {
			keep := slices.ContainsFunc(kept, func(s Server) bool { return s.Name == m.Server })
			if len(ids) < n && v.works(m) == working && !(working && keep) {
				ids = append(ids, m.ID)
			}
		}
	}
	return ids
}
