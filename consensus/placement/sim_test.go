package placement

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fatal is what rapid.T and testing.T have in common.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A machine is a server of a cluster, as it is.
type machine struct {
	Server // with its present disk
	up     bool
	since  time.Time // it is up or not
	listed bool      // in the catalog
}

// A cluster is a toy: one group that is nothing but its configuration, the catalog with its
// entry, and the machines under both.
type cluster struct {
	t        fatal
	now      time.Time
	machines []*machine
	catalog  []Server // as the machines registered themselves
	entry    Keyspace
	group    Observation
	older    []Observation // that were true once
	floor    int           // voters that the present change may not go below
}

func newCluster(t fatal, zones []string, initial, voters int) *cluster {
	c := &cluster{t: t, now: time.Unix(1_000_000, 0)}
	for range initial {
		c.join(zones[len(c.machines)%len(zones)])
	}
	entry, err := Place(Keyspace{Name: "ks", Gen: 1, Epoch: 1, Voters: voters}, c.catalog)
	if err != nil {
		t.Fatalf("%v", err)
	}
	c.entry = entry
	for _, r := range entry.Initial {
		c.group.Members = append(c.group.Members, Member{ID: r.ID, Server: r.Server, Voter: true})
	}
	c.group.Index = 1
	c.elect(0)
	return c
}

func (c *cluster) join(zone string) {
	m := &machine{Server: Server{Name: fmt.Sprintf("m%d", len(c.machines)), Disk: "1", Zone: zone}, since: c.now}
	c.machines = append(c.machines, m)
	c.start(m)
}

// start has a machine come up, which registers itself.
func (c *cluster) start(m *machine) {
	m.up, m.since, m.listed = true, c.now, true
	c.catalog = slices.DeleteFunc(c.catalog, func(s Server) bool { return s.Name == m.Name })
	c.catalog = append(c.catalog, m.Server)
}

func (c *cluster) stop(m *machine) { m.up, m.since = false, c.now }

func (c *cluster) machine(name string) *machine {
	i := slices.IndexFunc(c.machines, func(m *machine) bool { return m.Name == name })
	return c.machines[i]
}

func (c *cluster) works(m Member) bool {
	at := c.machine(m.Server)
	return at.up && at.Replica().ID == m.ID
}

func (c *cluster) voters() []Member {
	return slices.DeleteFunc(slices.Clone(c.group.Members), func(m Member) bool { return !m.Voter })
}

// quorum tells whether a majority of the voters works.
func (c *cluster) quorum() bool {
	working := 0
	for _, m := range c.voters() {
		if c.works(m) {
			working++
		}
	}
	return 2*working > len(c.voters())
}

// elect makes one of the voters that work the leader, if there is a quorum.
func (c *cluster) elect(n int) {
	working := slices.DeleteFunc(c.voters(), func(m Member) bool { return !c.works(m) })
	c.group.Leader = ""
	if c.quorum() {
		c.group.Leader = working[n%len(working)].ID
	}
}

// pass lets time pass; learners that work catch up.
func (c *cluster) pass(d time.Duration) {
	c.now = c.now.Add(d)
	if i := slices.IndexFunc(c.group.Members, func(m Member) bool { return m.ID == c.group.Leader }); i < 0 || !c.works(c.group.Members[i]) {
		c.elect(int(c.now.Unix()))
	}
	if c.group.Leader == "" {
		return
	}
	for i := range c.group.Members {
		m := &c.group.Members[i]
		if c.works(*m) {
			m.Lag = min(m.Lag, 3000) - min(m.Lag, 3000, 1000)
		}
	}
}

func (c *cluster) alive(name string) (bool, time.Time) {
	m := c.machine(name)
	return m.up, m.since
}

func (c *cluster) next(seen Observation) Action {
	seen.Members = slices.Clone(seen.Members)
	var entry Keyspace // as it is read from the catalog
	encoded, err := json.Marshal(c.entry)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	if err := json.Unmarshal(encoded, &entry); err != nil {
		c.t.Fatalf("%v", err)
	}
	return Policy{}.Next(c.now, entry, seen, c.catalog, c.alive)
}

// apply carries out an action and checks what must be true whatever happened before.
func (c *cluster) apply(a Action) {
	c.t.Helper()
	before := c.quorum()
	if a.Do == Record {
		c.record(a.Keyspace)
		return
	}
	if a.Do == None || a.Index != c.group.Index {
		return // the group's leader refuses what is meant for another configuration
	}
	change := c.entry.Change
	if change == nil {
		c.t.Fatalf("%v %v without a change in the catalog", a.Do, a.Replica)
	}
	members := slices.Clone(c.group.Members)
	at := slices.IndexFunc(members, func(m Member) bool { return m.ID == a.Replica.ID })
	switch a.Do {
	case AddLearner:
		if at >= 0 || !slices.Contains(change.Add, a.Replica) {
			c.t.Fatalf("adds %v to %v by %+v", a.Replica, members, change)
		}
		members = append(members, Member{ID: a.Replica.ID, Server: a.Replica.Server, Lag: UnknownLag})
	case Promote:
		if at < 0 || members[at].Voter || !slices.Contains(change.Add, a.Replica) || members[at].Lag > 256 {
			c.t.Fatalf("promotes %v in %v by %+v", a.Replica, members, change)
		}
		members[at].Voter = true
	case Remove:
		if at < 0 || !slices.Contains(change.Remove, a.Replica.ID) || a.Replica.ID == c.group.Leader {
			c.t.Fatalf("removes %v from %v by %+v", a.Replica, members, change)
		}
		members = slices.Delete(members, at, at+1)
	case TransferLeader:
		if at < 0 || !members[at].Voter {
			c.t.Fatalf("transfers to %v in %v", a.Replica, members)
		}
		if c.works(members[at]) { // if not, the leader remains
			c.group.Leader = a.Replica.ID
		}
		return
	}
	c.older = append(c.older, c.group)
	c.group.Members = members
	c.group.Index += 3
	if before && !c.quorum() {
		c.t.Fatalf("%v %v left no quorum: %v", a.Do, a.Replica, members)
	}
	if n := len(c.voters()); n < c.floor || n > MaxVoters+2 {
		c.t.Fatalf("%v %v left %d voters, at least %d: %v", a.Do, a.Replica, n, c.floor, members)
	}
}

// record writes the entry.
func (c *cluster) record(k Keyspace) {
	c.t.Helper()
	if c.entry.Change == nil && k.Change != nil {
		c.floor = min(k.Voters, len(c.voters()))
		if k.Change.Command {
			c.floor = 1
		}
	}
	c.entry = k
	// A host deletes what it has no duty for: no voter may come to that.
	for _, m := range c.voters() {
		s := Server{Name: m.Server, Disk: m.ID[len(m.Server)+1:]}
		if d := k.Duty(s); d == Absent || d == Begin && k.Started {
			c.t.Fatalf("voter %v has duty %v by %+v", m, d, k)
		}
	}
}

// converge runs without further faults until there is nothing to do, and checks the end.
func (c *cluster) converge() {
	c.t.Helper()
	var last Action
	for range 1000 {
		last = c.next(c.group)
		if last.Do == None && last.Wait.IsZero() {
			break
		}
		c.apply(last)
		if last.Do == None {
			c.pass(max(time.Second, last.Wait.Sub(c.now)))
		}
	}
	if last.Do != None || !last.Wait.IsZero() || c.entry.Change != nil {
		c.t.Fatalf("no end: %+v, %+v, %+v", last, c.entry, c.group)
	}
	if len(c.group.Members) != len(c.voters()) {
		c.t.Fatalf("a learner is left: %v", c.group.Members)
	}
	able := map[string]Server{}
	for _, s := range c.catalog {
		if !s.Draining && c.machine(s.Name).up {
			able[s.Name] = s
		}
	}
	good := 0
	for _, m := range c.voters() {
		if s, ok := able[m.Server]; ok && s.Replica().ID == m.ID {
			good++
		}
	}
	if len(able) >= c.entry.Voters && (good != c.entry.Voters || len(c.voters()) != c.entry.Voters) || good < min(c.entry.Voters, len(able))-1 {
		c.t.Fatalf("%d of the voters %v are on servers that may have some, want %d on %v: %+v", good, c.voters(), c.entry.Voters, able, last)
	}
}

// TestNextSimulation: servers die, come back, lose disks, drain, join and are taken from the
// catalog, operators give commands, actions are lost or repeated and the group is seen
// late. As long as only a minority of the voters is gone at any time, there is always
// a majority; changes are recorded before they are made and go one at a time; and in the
// end there are the voters that are wanted.
func TestNextSimulation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.SampledFrom([][]string{{""}, {"x", "y", "z"}, {"x", "x", "y"}}).Draw(t, "zones")
		c := newCluster(t, zones, rapid.IntRange(1, 6).Draw(t, "servers"), rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "voters"))
		var repeated Action
		var repeatedEntry Keyspace
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			m := c.machines[rapid.IntRange(0, len(c.machines)-1).Draw(t, "machine")]
			up, disk := m.up, m.Disk
			switch what := rapid.SampledFrom([]string{
				"act", "act", "act", "act", "act", "act", "lose", "repeat", "late", "pass", "long", "kill", "wipe", "start", "drain", "undrain", "join", "forget", "elect",
				"add", "remove", "voters",
			}).Draw(t, "what"); what {
			case "act":
				repeated, repeatedEntry = c.next(c.group), c.entry
				if r := repeated.Replica; repeated.Do == TransferLeader && !c.works(Member{ID: r.ID, Server: r.Server}) {
					t.Fatalf("transfers to %v, which does not work", r)
				}
				c.apply(repeated)
			case "lose":
				c.next(c.group)
			case "repeat": // an earlier leader of the system group still acts
				if repeated.Do != Record || reflect.DeepEqual(repeatedEntry, c.entry) {
					if repeated.Do != None && repeated.Index == c.group.Index && repeated.Do != TransferLeader && repeated.Do != Record {
						t.Fatalf("%+v is still possible after it was done", repeated)
					}
					c.apply(repeated)
				}
			case "late":
				if len(c.older) > 0 {
					seen := rapid.SampledFrom(c.older).Draw(t, "seen")
					if a := c.next(seen); c.entry.Started && seen.Index < c.entry.Index && a.Do != None {
						t.Fatalf("acts on what was true before: %+v", a)
					}
				}
			case "pass":
				c.pass(2 * time.Second)
			case "long":
				c.pass(6 * time.Minute)
			case "kill", "wipe":
				c.stop(m)
				if what == "wipe" {
					m.Disk += "1"
				}
				if !c.quorum() { // not this one
					m.up, m.Disk = up, disk
				}
			case "start":
				if !m.up {
					c.start(m)
				}
			case "drain", "undrain":
				m.Draining = what == "drain"
				for i := range c.catalog {
					if c.catalog[i].Name == m.Name {
						c.catalog[i].Draining = m.Draining
					}
				}
			case "join":
				if len(c.machines) < 9 {
					c.join(zones[len(c.machines)%len(zones)])
				}
			case "forget":
				if !m.up {
					m.listed = false
					c.catalog = slices.DeleteFunc(c.catalog, func(s Server) bool { return s.Name == m.Name })
				}
			case "elect":
				c.elect(rapid.IntRange(0, 5).Draw(t, "leader"))
			default:
				c.command(what, m, rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "n"))
			}
			if !c.quorum() {
				t.Fatalf("no quorum: %+v", c.group)
			}
		}
		for _, m := range c.machines {
			if m.listed && !m.up && rapid.Bool().Draw(t, "returns") {
				c.start(m)
			}
		}
		c.converge()
	})
}

// command gives a command, and follows what it says of the number of voters.
func (c *cluster) command(what string, m *machine, n int) {
	c.t.Helper()
	k, err := c.entry, error(nil)
	switch what {
	case "add":
		k, err = AddVoter(c.entry, m.Name, c.catalog)
	case "remove":
		k, err = RemoveVoter(c.entry, m.Name, c.catalog)
	case "voters":
		k, err = SetVoters(c.entry, n)
		c.floor = min(c.floor, n)
	}
	if err != nil {
		return
	}
	if checkVoters(k.Voters) != nil || len(k.Avoid) > maxAvoid {
		c.t.Fatalf("%s: %+v", what, k)
	}
	c.record(k)
}
