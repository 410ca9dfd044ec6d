package placement

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A starter is one server of a bootstrapWorld: what it has on its disk, and what runs.
type starter struct {
	self    Identity
	list    []string
	stored  *Promise // on the disk
	started bool     // in the log on the disk
	*Bootstrap
}

// A bootstrapWorld is a network of servers that start for the first time.
type bootstrapWorld struct {
	t        fatal
	servers  []*starter
	mail     []letter
	promised map[Identity]*Promise // by disk, the promise that was ever told of it
	begun    []*Promise            // different ones
}

type letter struct {
	to int
	Statement
}

func newBootstrapWorld(t fatal, lists ...string) *bootstrapWorld {
	t.Helper()
	w := &bootstrapWorld{t: t, promised: map[Identity]*Promise{}}
	for i, list := range lists {
		s := &starter{self: Identity{fmt.Sprint(string(rune('a' + i))), "1"}, list: strings.Split(list, "")}
		w.servers = append(w.servers, s)
		w.restart(s)
	}
	return w
}

// restart is a crash: only what is on the disk stays.
func (w *bootstrapWorld) restart(s *starter) {
	w.t.Helper()
	stored := s.stored
	if stored != nil { // as it is read back
		encoded, err := json.Marshal(stored)
		if err != nil {
			w.t.Fatalf("%v", err)
		}
		stored = nil
		if err := json.Unmarshal(encoded, &stored); err != nil {
			w.t.Fatalf("%v", err)
		}
	}
	b, err := NewBootstrap(s.self, s.list, stored, s.started)
	if err != nil && !errors.Is(err, ErrListsDiffer) && !errors.Is(err, ErrNotListed) && !errors.Is(err, ErrListSize) {
		w.t.Fatalf("start %v with %v: %v", s.self, s.list, err)
	}
	s.Bootstrap = b // nil: it does not run
}

func (w *bootstrapWorld) wipe(s *starter) {
	s.self.Disk += "1"
	s.stored, s.started = nil, false
	w.restart(s)
}

func (w *bootstrapWorld) send(from, to int) {
	if s := w.servers[from]; s.Bootstrap != nil {
		said := s.Statement()
		if p := said.Promise; p != nil {
			if old := w.promised[s.self]; old != nil && !reflect.DeepEqual(old, p) {
				w.t.Fatalf("%v promised %v, now it promises %v", s.self, old, p)
			}
			w.promised[s.self] = p
			if !reflect.DeepEqual(p, s.stored) {
				w.t.Fatalf("%v tells %v and has %v on its disk", s.self, p, s.stored)
			}
		}
		w.mail = append(w.mail, letter{to, said})
	}
}

// tell is a send that arrives at once.
func (w *bootstrapWorld) tell(from, to int) {
	if w.servers[from].Bootstrap != nil {
		w.send(from, to)
		w.deliver(len(w.mail) - 1)
	}
}

func (w *bootstrapWorld) deliver(i int) {
	l := w.mail[i]
	if to := w.servers[l.to]; to.Bootstrap != nil {
		if err := to.Hear(l.Statement); err != nil {
			w.t.Fatalf("%v hears %+v: %v", to.self, l.Statement, err)
		}
	}
}

// step carries out a decision; crash: the server dies between the disk and the rest.
func (w *bootstrapWorld) step(s *starter, crash bool) {
	w.t.Helper()
	if s.Bootstrap == nil {
		return
	}
	d := s.Decide()
	switch {
	case d.Promise != nil:
		s.stored = d.Promise
	case d.Start != nil:
		s.started = true
		w.start(s, d.Start)
	}
	switch {
	case crash:
		w.restart(s)
	case d.Promise != nil:
		s.Promised(d.Promise)
	case d.Start != nil:
		s.Began()
	}
}

// start checks that what begins may.
func (w *bootstrapWorld) start(by *starter, p *Promise) {
	w.t.Helper()
	if !slices.Contains(p.Servers, by.self) {
		w.t.Fatalf("%v begins %v", by.self, p)
	}
	for _, other := range w.begun {
		if other.Cluster == p.Cluster {
			return
		}
		for _, s := range other.Servers {
			if slices.Contains(p.Servers, s) {
				w.t.Fatalf("%v and %v both begin", other, p)
			}
			if slices.ContainsFunc(w.servers, func(o *starter) bool { return o.self == s }) && slices.Equal(other.names(), p.names()) {
				w.t.Fatalf("%v begins, of the same list as %v, of which %v is still there", p, other, s)
			}
		}
	}
	w.begun = append(w.begun, p)
}

// settle has all hear each other until nothing changes any more.
func (w *bootstrapWorld) settle() {
	w.t.Helper()
	w.mail = nil
	for range 4 { // identities, promises, starts, and once more
		for i := range w.servers {
			for j := range w.servers {
				if i != j {
					w.send(i, j)
				}
			}
		}
		for i := range w.mail {
			w.deliver(i)
		}
		w.mail = nil
		for _, s := range w.servers {
			w.step(s, false)
		}
	}
}

// TestBootstrapSchedules: whatever is lost, delayed, doubled, restarted, wiped and configured
// otherwise, two systems that share a disk never both begin; with one list for all, none
// begins while a disk of an earlier one is there; and without wipes all begin.
func TestBootstrapSchedules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lists := [][]string{{"a"}, {"abc", "abc", "abc"}, {"abcde", "abcde", "abcde", "abcde", "abcde"}}[rapid.IntRange(0, 2).Draw(t, "size")]
		same := rapid.Bool().Draw(t, "same lists")
		wipes := rapid.Bool().Draw(t, "wipes")
		other := []string{"abc", "abd", "ade", "abcde", "a", "c", "ab"}
		if !same {
			lists = make([]string, 5)
			for i := range lists {
				lists[i] = rapid.SampledFrom(other).Draw(t, "list")
			}
		}
		w := newBootstrapWorld(t, lists...)
		cut := map[[2]int]bool{}
		index := rapid.IntRange(0, len(lists)-1)
		for range rapid.IntRange(0, 150).Draw(t, "steps") {
			i, j := index.Draw(t, "i"), index.Draw(t, "j")
			switch rapid.SampledFrom([]string{"send", "send", "deliver", "deliver", "step", "step", "crash", "restart", "lose", "cut", "all", "wipe", "list"}).Draw(t, "what") {
			case "send":
				if i != j && !cut[[2]int{i, j}] {
					w.send(i, j)
				}
			case "all": // much would never come together by single letters
				for k := range lists {
					if k != i && !cut[[2]int{i, k}] {
						w.tell(i, k)
					}
				}
			case "deliver": // any, in any order, and it may come again
				if len(w.mail) > 0 {
					w.deliver(rapid.IntRange(0, len(w.mail)-1).Draw(t, "letter"))
				}
			case "lose":
				if len(w.mail) > 0 {
					w.mail = w.mail[1:]
				}
			case "step":
				w.step(w.servers[i], false)
			case "crash":
				w.step(w.servers[i], true)
			case "restart":
				w.restart(w.servers[i])
			case "cut":
				cut[[2]int{i, j}] = !cut[[2]int{i, j}]
			case "wipe":
				if wipes {
					w.wipe(w.servers[i])
				}
			case "list":
				if !same {
					w.servers[i].list = strings.Split(rapid.SampledFrom(other).Draw(t, "list"), "")
					w.restart(w.servers[i])
				}
			}
		}
		w.settle()
		for _, s := range w.servers {
			switch {
			case same && !wipes && !s.started:
				t.Fatalf("%v did not start: %+v", s.self, s.Decide())
			case same && !s.started && s.Decide().Err == nil:
				t.Fatalf("%v did not start and does not say why: %+v", s.self, s.Decide())
			}
		}
	})
}

// TestBootstrapStarts: three servers, without faults.
func TestBootstrapStarts(t *testing.T) {
	w := newBootstrapWorld(t, "abc", "cba", "bac")
	if d := w.servers[0].Decide(); d.Promise != nil || d.Start != nil || d.Err != nil || !slices.Equal(d.Waiting, []string{"b", "c"}) {
		t.Fatalf("alone: %+v", d)
	}
	w.settle()
	want := []Replica{{Server: "a", ID: "a/1"}, {Server: "b", ID: "b/1"}, {Server: "c", ID: "c/1"}}
	for _, s := range w.servers {
		if !s.started {
			t.Fatalf("%v has not begun: %+v", s.self, s.Decide())
		}
		k := s.promise.System()
		if !reflect.DeepEqual(k.Initial, want) || k.Voters != 3 || k.Group() != "_system#1.1" {
			t.Errorf("%v begins %+v", s.self, k)
		}
		if got := k.Duty(Server{Name: s.self.Name, Disk: s.self.Disk}); got != Begin {
			t.Errorf("%v has duty %v", s.self, got)
		}
		if got := k.Duty(Server{Name: s.self.Name, Disk: "2"}); got != Absent {
			t.Errorf("%v with another disk has duty %v", s.self, got)
		}
		w.restart(s)
		if d := s.Decide(); !reflect.DeepEqual(d, Decision{}) {
			t.Errorf("%v after a restart: %+v", s.self, d)
		}
	}
	if id := w.servers[0].promise.Cluster; len(id) != 32 || id != w.servers[2].promise.Cluster {
		t.Errorf("cluster %q and %q", id, w.servers[2].promise.Cluster)
	}
}

func TestNewBootstrapRefuses(t *testing.T) {
	a := Identity{"a", "1"}
	promise := newPromise([]Identity{{"c", "1"}, {"b", "1"}, a})
	forged := *promise
	forged.Cluster = strings.Repeat("0", 32)
	for name, c := range map[string]struct {
		self    Identity
		list    string
		stored  *Promise
		started bool
		want    error
		text    string
	}{
		"alone":                      {self: a, list: "a"},
		"five":                       {self: a, list: "edcba"},
		"goes on":                    {self: a, list: "bca", stored: promise},
		"started, any list":          {self: a, list: "xy", stored: promise, started: true},
		"two":                        {self: a, list: "ab", want: ErrListSize, text: "[a,b]"},
		"four":                       {self: a, list: "abcd", want: ErrListSize},
		"seven":                      {self: a, list: "abcdefg", want: ErrListSize},
		"twice":                      {self: a, list: "aab", want: ErrListSize},
		"not on the list":            {self: a, list: "bcd", want: ErrNotListed, text: "a, [b c d]"},
		"other list than promised":   {self: a, list: "abd", stored: promise, want: ErrListsDiffer, text: "a is given [a,b,d], but promised [a,b,c] before"},
		"another disk than promised": {self: Identity{"a", "2"}, list: "abc", stored: promise, want: ErrDamagedPromise},
		"forged":                     {self: a, list: "abc", stored: &forged, want: ErrDamagedPromise},
		"started without a promise":  {self: a, list: "abc", started: true, want: ErrDamagedPromise},
	} {
		_, err := NewBootstrap(c.self, strings.Split(c.list, ""), c.stored, c.started)
		if !errors.Is(err, c.want) || c.text != "" && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", name, err, c.want, c.text)
		}
	}
}

func TestBootstrapDifferentLists(t *testing.T) {
	for name, lists := range map[string][]string{
		"one differs":            {"abc", "abc", "abd", "abd"},
		"one is given more":      {"abc", "abc", "abc", "abcde", "abcde"},
		"a stranger names us":    {"abc", "abc", "abc", "ade", "ade"},
		"one thinks it is alone": {"abc", "abc", "c"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBootstrapWorld(t, lists...)
			w.settle()
			d := w.servers[0].Decide()
			var lists *ListError
			if !errors.As(d.Err, &lists) || lists.Server != "a" || lists.Other == "a" || !errors.Is(d.Err, ErrListsDiffer) {
				t.Fatalf("a decides %+v", d)
			}
			if promise := w.servers[0].stored; promise != nil {
				t.Errorf("a promised %v", promise)
			}
			for _, part := range []string{"a is given [a,b,c]", lists.Other + " is given [" + strings.Join(lists.OtherList, ",") + "]", "give all the same list"} {
				if !strings.Contains(d.Err.Error(), part) {
					t.Errorf("%q lacks %q", d.Err, part)
				}
			}
		})
	}
}

// TestBootstrapListCorrected: a wrong list is corrected, and all goes on.
func TestBootstrapListCorrected(t *testing.T) {
	w := newBootstrapWorld(t, "abc", "abc", "ace", "acd")
	w.settle()
	for _, s := range w.servers[2:] {
		s.list = []string{"a", "b", "c"}
		w.restart(s)
	}
	w.servers[0].strangers["d"] = Statement{Identity: Identity{"d", "1"}, List: []string{"a", "c", "d"}}
	if err := w.servers[0].Hear(Statement{Identity: Identity{"d", "1"}, List: []string{"d"}}); err != nil {
		t.Fatal(err)
	}
	w.servers = w.servers[:3]
	w.settle()
	for _, s := range w.servers {
		if !s.started {
			t.Errorf("%v: %+v", s.self, s.Decide())
		}
	}
}

// TestBootstrapDiskLost: c loses its disk after the others promised it.
func TestBootstrapDiskLost(t *testing.T) {
	t.Run("before it promised", func(t *testing.T) {
		w := newBootstrapWorld(t, "abc", "abc", "abc")
		for range 2 { // a and b hear all and promise; c hears nobody
			for _, way := range [][2]int{{0, 1}, {1, 0}, {2, 0}, {2, 1}} {
				w.tell(way[0], way[1])
			}
			w.step(w.servers[0], false)
			w.step(w.servers[1], false)
		}
		w.wipe(w.servers[2])
		w.settle()
		for _, s := range w.servers {
			d := s.Decide()
			var lost *DiskError
			if !errors.As(d.Err, &lost) || *lost != (DiskError{"c", "1", "11"}) || !errors.Is(d.Err, ErrDiskLost) {
				t.Fatalf("%v: %+v", s.self, d)
			}
			if want := "If it never ran, give every listed server an empty data directory"; !strings.Contains(d.Err.Error(), want) {
				t.Errorf("%v has no remedy", d.Err)
			}
		}
		for _, s := range w.servers { // the remedy
			w.wipe(s)
		}
		w.settle()
		if len(w.begun) != 1 || !w.servers[0].started || !w.servers[2].started {
			t.Errorf("after the remedy: %v", w.begun)
		}
	})
	t.Run("after it promised to one", func(t *testing.T) {
		w := newBootstrapWorld(t, "abc", "abc", "abc")
		everybody := func(ways ...[2]int) {
			for _, way := range ways {
				w.tell(way[0], way[1])
			}
		}
		everybody([2]int{0, 1}, [2]int{0, 2}, [2]int{1, 0}, [2]int{1, 2}, [2]int{2, 0}, [2]int{2, 1})
		for _, s := range w.servers {
			w.step(s, false)
		}
		everybody([2]int{2, 0}) // only a hears c's promise
		w.wipe(w.servers[2])
		w.settle()
		if !w.servers[0].started || !w.servers[1].started || w.servers[2].started || len(w.begun) != 1 {
			t.Fatalf("a, which has all promises, and b, which hears of it: %+v, %+v", w.servers[0].Decide(), w.servers[1].Decide())
		}
		if d := w.servers[2].Decide(); !errors.Is(d.Err, ErrDiskLost) || !strings.Contains(d.Err.Error(), "leave this: c is added again by it") {
			t.Errorf("c: %+v", d)
		}
	})
}

// TestBootstrapPromisesDiffer: a disk changed between two promises, and nobody can know
// which is right.
func TestBootstrapPromisesDiffer(t *testing.T) {
	w := newBootstrapWorld(t, "abc", "abc", "abc")
	a, b := w.servers[0], w.servers[1]
	hear := func(s *starter, others ...Statement) {
		for _, o := range others {
			if err := s.Hear(o); err != nil {
				t.Fatal(err)
			}
		}
	}
	c1 := w.servers[2].Statement()
	w.wipe(w.servers[2])
	c2 := w.servers[2].Statement()
	hear(a, b.Statement(), c1)
	hear(b, a.Statement(), c2)
	w.step(a, false)
	w.step(b, false)
	hear(a, b.Statement())
	hear(b, a.Statement())
	for _, s := range []*starter{a, b} {
		var p *PromiseError
		if d := s.Decide(); !errors.As(d.Err, &p) || !errors.Is(d.Err, ErrPromised) || !strings.Contains(d.Err.Error(), "c/1 ") && !strings.Contains(d.Err.Error(), "c/1]") {
			t.Errorf("%v: %+v", s.self, d)
		}
	}
}

func TestHearRefuses(t *testing.T) {
	b, err := NewBootstrap(Identity{"a", "1"}, []string{"a", "b", "c"}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{"a", "b", "c"}
	promise := newPromise([]Identity{{"a", "1"}, {"b", "1"}, {"c", "1"}})
	for name, c := range map[string]struct {
		Statement
		want error
	}{
		"promise of another disk":   {Statement{Identity{"b", "2"}, list, promise, false}, ErrDamagedPromise},
		"started without a promise": {Statement{Identity{"b", "1"}, list, nil, true}, ErrDamagedPromise},
		"too long":                  {Statement{Identity{"b", "1"}, make([]string, maxList+1), nil, false}, ErrListSize},
		"unsorted promise":          {Statement{Identity{"b", "1"}, list, &Promise{Servers: []Identity{{"b", "1"}, {"a", "1"}, {"c", "1"}}}, false}, ErrDamagedPromise},
	} {
		if err := b.Hear(c.Statement); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for i := range 3 * maxStrangers {
		if err := b.Hear(Statement{Identity: Identity{fmt.Sprintf("x%d", i), "1"}, List: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Hear(Statement{Identity: Identity{"a", "2"}, List: list}); err != nil || len(b.heard) > 0 {
		t.Errorf("an echo: %v, heard %v", err, slices.Collect(maps.Keys(b.heard)))
	}
	if len(b.strangers) != maxStrangers {
		t.Errorf("%d strangers kept", len(b.strangers))
	}
}
