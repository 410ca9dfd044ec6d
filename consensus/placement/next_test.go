package placement

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// replica is that of "a" or, with another disk than the first, "a/2".
func replica(s string) Replica {
	name, disk, ok := strings.Cut(s, "/")
	if !ok {
		disk = "1"
	}
	return Server{Name: name, Disk: disk}.Replica()
}

func replicas(list string) (rs []Replica) {
	for _, s := range strings.Fields(list) {
		rs = append(rs, replica(s))
	}
	return rs
}

func ids(list string) (ids []string) {
	for _, r := range replicas(list) {
		ids = append(ids, r.ID)
	}
	return ids
}

// A scene is one state of a keyspace; names stand for replicas on first disks.
type scene struct {
	wanted  int    // 0: 3
	voters  string // the first one leads
	learner string // in the group; with "…" behind it, it has not caught up
	servers string // "a", "a/2", "a-" is draining; also those of voters if they are not named
	gone    string // servers that are in no catalog
	dead    map[string]time.Duration
	change  *Change
	settle  time.Duration
}

func (s scene) keyspace() Keyspace {
	k := Keyspace{Name: "ks", Gen: 1, Epoch: 1, Voters: max(s.wanted, 1), Started: true, Index: 7, Change: s.change}
	if s.wanted == 0 {
		k.Voters = 3
	}
	if s.settle != 0 {
		k.Settle = noon.Add(s.settle)
	}
	for _, m := range s.observation().Members {
		k.Members = append(k.Members, Replica{Server: m.Server, ID: m.ID, Learner: !m.Voter})
	}
	k.Members = sortedByID(k.Members)
	return k
}

func (s scene) observation() Observation {
	o := Observation{Index: 7}
	for _, r := range replicas(s.voters) {
		o.Members = append(o.Members, Member{ID: r.ID, Server: r.Server, Voter: true})
	}
	for name := range strings.FieldsSeq(s.learner) {
		name, behind := strings.CutSuffix(name, "…")
		m := Member{ID: replica(name).ID, Server: replica(name).Server}
		if behind {
			m.Lag = 257
		}
		o.Members = append(o.Members, m)
	}
	if len(o.Members) > 0 {
		o.Leader = o.Members[0].ID
	}
	return o
}

func (s scene) catalog() (servers []Server) {
	add := func(name string) {
		name, draining := strings.CutSuffix(name, "-")
		name, disk, ok := strings.Cut(name, "/")
		if !ok {
			disk = "1"
		}
		known := slices.ContainsFunc(servers, func(s Server) bool { return s.Name == name })
		if !known && !strings.Contains(s.gone, name) {
			servers = append(servers, Server{Name: name, Disk: disk, Draining: draining})
		}
	}
	for name := range strings.FieldsSeq(s.servers) {
		add(name)
	}
	for name := range strings.FieldsSeq(s.voters) {
		add(name)
	}
	return servers
}

func (s scene) alive(name string) (bool, time.Time) {
	d, dead := s.dead[name]
	return !dead, noon.Add(-d)
}

func (s scene) next() Action {
	return Policy{}.Next(noon, s.keyspace(), s.observation(), s.catalog(), s.alive)
}

func TestNext(t *testing.T) {
	dead := func(names string) map[string]time.Duration {
		m := map[string]time.Duration{}
		for name := range strings.FieldsSeq(names) {
			m[name] = 5 * time.Minute
		}
		return m
	}
	replace := &Change{Add: replicas("d"), Remove: ids("c")}
	drain := &Change{Add: replicas("d"), Remove: ids("a")}
	grow := &Change{Add: replicas("b c")}
	for _, c := range []struct {
		name string
		scene
		do   Step
		of   string  // replica of a step at the group
		to   *Change // that is recorded; its Why is not compared
		why  Reason
		wait time.Duration
	}{
		{name: "all is well", scene: scene{voters: "a b c", servers: "d"}},
		{name: "no leader", scene: scene{}, why: NoLeader, wait: time.Second},

		{name: "dead for a short time", scene: scene{voters: "a b c", servers: "d", dead: map[string]time.Duration{"c": time.Minute}}, why: Dead, wait: 4 * time.Minute},
		{name: "dead for long", scene: scene{voters: "a b c", servers: "d", dead: dead("c")}, do: Record, to: replace},
		{name: "dead, and no other server", scene: scene{voters: "a b c", dead: dead("c")}, why: NoSpare},
		{name: "dead, and the other server too", scene: scene{voters: "a b c", servers: "d", dead: dead("c d")}, why: NoSpare},
		{name: "dead, and the other server draining", scene: scene{voters: "a b c", servers: "d-", dead: dead("c")}, why: NoSpare},
		{name: "a majority is dead", scene: scene{voters: "a b c", servers: "d e", dead: dead("b c")}, why: NoQuorum, wait: time.Second},
		{name: "half is dead", scene: scene{wanted: 5, voters: "a b c d", servers: "e", dead: dead("c d")}, why: NoQuorum, wait: time.Second},
		{name: "a majority lost its disks", scene: scene{voters: "a b c", servers: "b/2 c/2 d"}, why: NoQuorum, wait: time.Second},
		{name: "draining", scene: scene{voters: "a b c", servers: "a- d"}, do: Record, to: drain},
		{name: "draining, and no other server", scene: scene{voters: "a b c", servers: "a-"}, why: NoSpare},
		{name: "another disk, at the same server", scene: scene{voters: "a b c", servers: "c/2 d"}, do: Record, to: &Change{Add: replicas("c/2"), Remove: ids("c")}},
		{name: "another disk, server dead", scene: scene{voters: "a b c", servers: "c/2 d", dead: map[string]time.Duration{"c": 0}}, do: Record, to: replace},
		{name: "another disk, draining", scene: scene{voters: "a b c", servers: "c/2- d"}, do: Record, to: replace},
		{name: "not in the catalog", scene: scene{voters: "a b c", servers: "d", gone: "c"}, do: Record, to: replace},
		{name: "the dead one before the draining one", scene: scene{voters: "a b c", servers: "a- d", dead: dead("c")}, do: Record, to: replace},

		{name: "adds the learner", scene: scene{voters: "a b c", servers: "d", dead: dead("c"), change: replace}, do: AddLearner, of: "d"},
		{name: "waits for it", scene: scene{voters: "a b c", learner: "d…", servers: "d", dead: dead("c"), change: replace}, why: CatchingUp, wait: time.Second},
		{name: "promotes it", scene: scene{voters: "a b c", learner: "d", servers: "d", dead: dead("c"), change: replace}, do: Promote, of: "d"},
		{name: "removes the old one", scene: scene{voters: "a b c d", servers: "d", dead: dead("c"), change: replace}, do: Remove, of: "c"},
		{name: "is done", scene: scene{voters: "a b d", change: replace}, do: Record},
		{name: "the old one is back: goes on", scene: scene{voters: "a b c", learner: "d", servers: "d", change: replace}, do: Promote, of: "d"},
		{name: "the learner is dead for a short time", scene: scene{voters: "a b c", learner: "d", servers: "d", dead: map[string]time.Duration{"d": time.Second}, change: replace}, why: CatchingUp, wait: time.Second},
		{name: "the learner is dead", scene: scene{voters: "a b c", learner: "d…", servers: "d e", dead: dead("c d"), change: replace}, do: Record, to: &Change{Remove: ids("d")}},
		{name: "the learner is given up", scene: scene{voters: "a b c", learner: "d", servers: "d e", dead: dead("c d"), change: &Change{Remove: ids("d")}}, do: Remove, of: "d"},
		{name: "the learner lost its disk", scene: scene{voters: "a b c", learner: "d", servers: "d/2", dead: dead("c"), change: replace}, do: Record, to: &Change{Remove: ids("d")}},
		{name: "the learner drains", scene: scene{voters: "a b c", learner: "d", servers: "d-", dead: dead("c"), change: replace}, do: Record, to: &Change{Remove: ids("d")}},
		{name: "the leader drains", scene: scene{voters: "a b c d", servers: "a-", change: drain}, do: TransferLeader, of: "b"},
		{name: "the leader drains, and the first one is dead", scene: scene{voters: "a b c d", servers: "a-", dead: dead("b"), change: drain}, do: TransferLeader, of: "c"},
		{name: "quorum lost meanwhile", scene: scene{voters: "a b c d", servers: "d", dead: dead("c d"), change: replace}, why: NoQuorum, wait: time.Second},
		{name: "removing a live one would be unsafe", scene: scene{wanted: 1, voters: "a b c", dead: map[string]time.Duration{"c": time.Second}, change: &Change{Remove: ids("b")}}, why: Unsafe, wait: time.Second},
		{name: "the leader goes last where none could follow it", scene: scene{wanted: 1, voters: "a b c d", dead: map[string]time.Duration{"d": time.Second}, change: &Change{Remove: ids("a b c")}}, do: Remove, of: "b"},
		{name: "so another goes first", scene: scene{wanted: 1, voters: "a b c", dead: map[string]time.Duration{"c": time.Second}, change: &Change{Remove: ids("b c")}}, do: Remove, of: "c"},
		{name: "so the dead one is replaced first", scene: scene{voters: "a b c", servers: "d", dead: dead("c"), change: &Change{Remove: ids("b"), Command: true}}, do: Record},
		{name: "a learner of no change", scene: scene{voters: "a b c", learner: "d", servers: "d"}, do: Record, to: &Change{Remove: ids("d")}},

		{name: "one voter of two servers stays", scene: scene{voters: "a", servers: "b"}, why: NoSpare},
		{name: "one voter grows to three", scene: scene{voters: "a", servers: "b c"}, do: Record, to: &Change{Add: replicas("c b")}},
		{name: "both are added before one is promoted", scene: scene{voters: "a", learner: "b", servers: "b c", change: grow}, do: AddLearner, of: "c"},
		{name: "both have caught up before one is promoted", scene: scene{voters: "a", learner: "b c…", servers: "b c", change: grow}, why: CatchingUp, wait: time.Second},
		{name: "the first is promoted", scene: scene{voters: "a", learner: "b c", servers: "b c", change: grow}, do: Promote, of: "b"},
		{name: "the second is promoted", scene: scene{voters: "a b", learner: "c", servers: "c", change: grow}, do: Promote, of: "c"},
		{name: "one of two is given up", scene: scene{voters: "a", learner: "b c", servers: "b c", dead: dead("c"), change: grow}, do: Record, to: &Change{Add: replicas("b"), Remove: ids("c")}},
		{name: "two voters grow by one", scene: scene{voters: "a b", servers: "c"}, do: Record, to: &Change{Add: replicas("c")}},
		{name: "two voters without a server stay", scene: scene{voters: "a b"}, why: NoSpare},
		{name: "three of five wanted stay with one server more", scene: scene{wanted: 5, voters: "a b c", servers: "d"}, why: NoSpare},
		{name: "too many: the dead one goes", scene: scene{voters: "a b c d", servers: "e", dead: dead("b")}, do: Record, to: &Change{Remove: ids("b")}},
		{name: "too many: the draining one goes", scene: scene{voters: "a b c d", servers: "c- e"}, do: Record, to: &Change{Remove: ids("c")}},
		{name: "a command left two", scene: scene{voters: "a b", servers: "c", settle: time.Minute}, why: Settling, wait: time.Minute},
		{name: "a command left four", scene: scene{voters: "a b c d", settle: time.Minute}, why: Settling, wait: time.Minute},
		{name: "the time after the command is over", scene: scene{voters: "a b", servers: "c", settle: -time.Second}, do: Record, to: &Change{Add: replicas("c")}},
		{name: "the clock was set back", scene: scene{voters: "a b", servers: "c", settle: time.Hour}, do: Record, to: &Change{Add: replicas("c")}},
		{name: "dead one after a command", scene: scene{voters: "a b c d", servers: "e", dead: dead("d"), settle: time.Minute}, do: Record, to: &Change{Add: replicas("e"), Remove: ids("d")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := c.next()
			want := Action{Do: c.do, Why: c.why}
			switch {
			case c.do == Record:
				want.Keyspace = c.keyspace()
				if got := a.Keyspace.Change; got != nil && got.Why == "" {
					t.Errorf("a change without a reason")
				} else if got != nil {
					changed := *got
					changed.Why = ""
					a.Keyspace.Change = &changed
				}
				want.Keyspace.Change = c.to
			case c.do != None:
				want.Index, want.Replica = 7, replica(c.of)
			case c.wait != 0:
				want.Wait = noon.Add(c.wait)
			}
			if !reflect.DeepEqual(a, want) {
				t.Errorf("got  %+v, change %+v\nwant %+v, change %+v", a, a.Keyspace.Change, want, want.Keyspace.Change)
			}
		})
	}
}

func TestNextRecordsWhatItSees(t *testing.T) {
	s := scene{voters: "a b", learner: "c", servers: "c d"}
	k := s.keyspace()
	o := s.observation()
	t.Run("a group that started", func(t *testing.T) {
		fresh := k
		fresh.Started, fresh.Index, fresh.Members = false, 0, nil
		if a := (Policy{}).Next(noon, fresh, o, s.catalog(), s.alive); a.Do != Record || !reflect.DeepEqual(a.Keyspace, k) {
			t.Errorf("got %+v, want %+v", a, k)
		}
	})
	t.Run("another configuration", func(t *testing.T) {
		later := o
		later.Index = 9
		later.Members = append(slices.Clone(o.Members), Member{ID: "d/1", Server: "d"})
		a := Policy{}.Next(noon, k, later, s.catalog(), s.alive)
		if a.Do != Record || a.Keyspace.Index != 9 || len(a.Keyspace.Members) != 4 || !a.Keyspace.Members[3].Learner {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("an older configuration", func(t *testing.T) {
		older := o
		older.Index = 6
		if a := (Policy{}).Next(noon, k, older, s.catalog(), s.alive); a.Do != None || a.Why != Outdated {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("removed", func(t *testing.T) {
		removed := k
		removed.Removed = true
		if a := (Policy{}).Next(noon, removed, o, s.catalog(), s.alive); a.Do != None || a.Why != Gone {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("a command is complete", func(t *testing.T) {
		s := scene{voters: "a b c d", change: &Change{Add: replicas("d"), Command: true}}
		if a := s.next(); a.Do != Record || a.Keyspace.Change != nil || !a.Keyspace.Settle.Equal(noon.Add(10*time.Minute)) {
			t.Errorf("got %+v", a)
		}
		s = scene{voters: "a b d", change: &Change{Add: replicas("d"), Command: true}, settle: time.Minute}
		if a := s.next(); a.Do != Record || a.Keyspace.Change != nil || !a.Keyspace.Settle.IsZero() {
			t.Errorf("got %+v", a)
		}
	})
}

// TestReplacementKeepsZonesApart: the place of c is taken in the zone that is left without.
func TestReplacementKeepsZonesApart(t *testing.T) {
	s := scene{voters: "a b c", dead: map[string]time.Duration{"c": time.Hour}}
	zones := map[string]string{"a": "x", "b": "y", "c": "z", "d": "x", "e": "y", "f": "z"}
	var servers []Server
	for name, zone := range zones {
		servers = append(servers, Server{Name: name, Disk: "1", Zone: zone})
	}
	a := Policy{}.Next(noon, s.keyspace(), s.observation(), servers, s.alive)
	if a.Do != Record || !reflect.DeepEqual(a.Keyspace.Change.Add, replicas("f")) {
		t.Errorf("got %+v, %+v", a, a.Keyspace.Change)
	}
}

func TestCommands(t *testing.T) {
	busy := &Change{Remove: ids("c")}
	for _, c := range []struct {
		name string
		scene
		command string // "+a", "-a"
		wanted  int    // afterwards
		change  *Change
		err     error
	}{
		{name: "a fourth", scene: scene{voters: "a b c", servers: "d"}, command: "+d", wanted: 3, change: &Change{Add: replicas("d")}},
		{name: "a fifth", scene: scene{voters: "a b c d", servers: "e"}, command: "+e", wanted: 5, change: &Change{Add: replicas("e")}},
		{name: "a sixth, for an exchange", scene: scene{wanted: 5, voters: "a b c d e", servers: "f"}, command: "+f", wanted: 5, change: &Change{Add: replicas("f")}},
		{name: "a seventh", scene: scene{wanted: 5, voters: "a b c d e f", servers: "g"}, command: "+g", err: ErrTooManyVoters},
		{name: "a second, with a third in sight", scene: scene{voters: "a", servers: "b c"}, command: "+b", wanted: 3, change: &Change{Add: replicas("b")}},
		{name: "a second, and no third", scene: scene{voters: "a", servers: "b"}, command: "+b", err: ErrEvenVoters},
		{name: "a second, and the third drains", scene: scene{voters: "a", servers: "b c-"}, command: "+b", err: ErrEvenVoters},
		{name: "a second, of one wanted", scene: scene{wanted: 1, voters: "a", servers: "b"}, command: "+b", wanted: 1, change: &Change{Add: replicas("b")}},
		{name: "one that is there", scene: scene{voters: "a b c", change: busy}, command: "+c", wanted: 3, change: busy},
		{name: "an unknown one", scene: scene{voters: "a b c"}, command: "+d", err: ErrUnknownServer},
		{name: "a draining one", scene: scene{voters: "a b c", servers: "d-"}, command: "+d", err: ErrDraining},
		{name: "one that lost its disk", scene: scene{voters: "a b c", servers: "c/2"}, command: "+c", err: ErrBusy},
		{name: "a change is under way", scene: scene{voters: "a b c", servers: "d", change: busy}, command: "+d", err: ErrBusy},

		{name: "removes one of four", scene: scene{voters: "a b c d"}, command: "-d", wanted: 3, change: &Change{Remove: ids("d")}},
		{name: "removes one of three", scene: scene{voters: "a b c", servers: "d"}, command: "-a", wanted: 3, change: &Change{Remove: ids("a")}},
		{name: "removes one of three, and there is no other", scene: scene{voters: "a b c"}, command: "-a", err: ErrEvenVoters},
		{name: "removes one of two", scene: scene{voters: "a b"}, command: "-a", wanted: 1, change: &Change{Remove: ids("a")}},
		{name: "removes the last", scene: scene{wanted: 1, voters: "a", servers: "b"}, command: "-a", err: ErrLastVoter},
		{name: "removes none", scene: scene{voters: "a b c", change: busy}, command: "-d", wanted: 3, change: busy},
		{name: "removes while a change is under way", scene: scene{voters: "a b c", servers: "d", change: busy}, command: "-a", err: ErrBusy},
	} {
		t.Run(c.name, func(t *testing.T) {
			command := AddVoter
			if c.command[0] == '-' {
				command = RemoveVoter
			}
			k, err := command(c.keyspace(), c.command[1:], c.catalog())
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			want := c.keyspace()
			want.Voters = c.wanted
			if c.change != c.scene.change {
				changed := *c.change
				changed.Command = true
				want.Change = &changed
				if c.command[0] == '-' {
					want.Avoid = []string{c.command[1:]}
				}
				k.Change.Why = ""
			}
			if !reflect.DeepEqual(k, want) {
				t.Errorf("got  %+v, %+v\nwant %+v, %+v", k, k.Change, want, want.Change)
			}
		})
	}
}

// TestAvoid: who was removed by a command comes last, until added again; the list is bounded.
func TestAvoid(t *testing.T) {
	s := scene{voters: "a b c", servers: "d e f"}
	k, err := RemoveVoter(s.keyspace(), "a", s.catalog())
	if err != nil {
		t.Fatal(err)
	}
	after := scene{voters: "b c", servers: "a d"}
	k.Change = nil
	k.Members = after.keyspace().Members
	a := Policy{}.Next(noon, k, after.observation(), after.catalog(), after.alive)
	if a.Do != Record || !reflect.DeepEqual(a.Keyspace.Change.Add, replicas("d")) {
		t.Errorf("got %+v, %+v", a, a.Keyspace.Change)
	}
	if k, err := AddVoter(k, "a", after.catalog()); err != nil || len(k.Avoid) != 0 {
		t.Errorf("added again: %+v, %v", k, err)
	}
	k.Avoid = append(k.Avoid, strings.Fields("g h i j k l m n")...)
	k.Members = s.keyspace().Members
	if k, err := RemoveVoter(k, "b", s.catalog()); err != nil || !slices.Equal(k.Avoid, strings.Fields("h i j k l m n b")) {
		t.Errorf("avoids %v, %v", k.Avoid, err)
	}
}

func TestSetVoters(t *testing.T) {
	k := scene{voters: "a b", settle: time.Minute}.keyspace()
	for _, n := range []int{-1, 0, 2, 4, 6, 7} {
		if _, err := SetVoters(k, n); !errors.Is(err, ErrVoters) {
			t.Errorf("%d voters: %v", n, err)
		}
	}
	if k, err := SetVoters(k, 5); err != nil || k.Voters != 5 || !k.Settle.IsZero() {
		t.Errorf("five voters: %+v, %v", k, err)
	}
}

func TestPlace(t *testing.T) {
	all := scene{servers: "a b c d e f-"}.catalog()
	for _, c := range []struct {
		servers, voters, want int
		err                   error
	}{
		{0, 3, 0, ErrNoServer}, {1, 3, 1, nil}, {2, 3, 1, nil}, {3, 3, 3, nil}, {4, 5, 3, nil}, {5, 5, 5, nil}, {5, 1, 1, nil}, {3, 2, 0, ErrVoters}, {3, 0, 0, ErrVoters},
	} {
		k, err := Place(Keyspace{Name: "ks", Gen: 2, Epoch: 1, Voters: c.voters}, append(slices.Clone(all[:c.servers]), all[5]))
		if !errors.Is(err, c.err) || len(k.Initial) != c.want || !reflect.DeepEqual(k.Members, sortedByID(k.Initial)) {
			t.Errorf("%d voters of %d servers: %+v, %v", c.voters, c.servers, k, err)
		}
		if err != nil {
			continue
		}
		if !strings.HasPrefix(k.Group(), "ks#2.1") || k.Started {
			t.Errorf("group %q, %+v", k.Group(), k)
		}
	}
}

func TestDuty(t *testing.T) {
	fresh, err := Place(Keyspace{Name: "ks", Voters: 3}, scene{servers: "a b c"}.catalog())
	if err != nil {
		t.Fatal(err)
	}
	started := scene{voters: "a b c", learner: "d", change: &Change{Add: replicas("d e"), Remove: ids("c")}}.keyspace()
	started.Initial = fresh.Initial
	moved := scene{voters: "a b d"}.keyspace() // c was removed
	moved.Initial = fresh.Initial
	removed := started
	removed.Removed = true
	recovered := Recover(started, replica("b"))
	for name, c := range map[string]struct {
		Keyspace
		server string
		want   Duty
	}{
		"begins":                            {fresh, "a", Begin},
		"is none of those who begin":        {fresh, "d", Absent},
		"another disk than who begins":      {fresh, "a/2", Absent},
		"began":                             {started, "c", Join},
		"a learner":                         {started, "d", Join},
		"is to be added":                    {started, "e", Join},
		"another disk than the member's":    {started, "a/2", Absent},
		"was removed, and begins no second": {moved, "c", Absent},
		"keyspace removed":                  {removed, "a", Absent},
		"survivor":                          {recovered, "b", Join},
		"no survivor":                       {recovered, "a", Absent},
	} {
		if got := c.Duty(replicaServer(c.server)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if recovered.Epoch != started.Epoch+1 || recovered.Group() == started.Group() || recovered.Change != nil || recovered.Voters != 3 {
		t.Errorf("recovered %+v", recovered)
	}
}

// replicaServer is the server that has the replica.
func replicaServer(s string) Server {
	r := replica(s)
	return Server{Name: r.Server, Disk: r.ID[len(r.Server)+1:]}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		None.String(): "none", Promote.String(): "promote", TransferLeader.String(): "transfer leader", Step(9).String(): "step 9",
		Absent.String(): "absent", Join.String(): "join", Begin.String(): "begin", Duty(9).String(): "duty 9",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
