package keyspace

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/bridge"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

const mirrorOrigin = crdt.Inc(900 << 22)

// A mirrorWorld, which is used in a bubble of synctest, is one log, voters that apply it each at its own pace and feed their
// mirrors, and nodes that only hold one. Links keep their order, and lose what is
// under way when they are cut.
type mirrorWorld struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	role  gossip.Role
	log   [][]byte
	lease machine.LeaseID
	m     *machine.Machine // that has applied the whole log
	nodes []*mirrorNode
	incs  crdt.Inc
	up    map[[2]int]bool
	fly   map[[2]int][][]byte // frames from and to
}

type mirrorNode struct {
	id    int
	voter bool
	self  gossip.PeerID
	ks    *Keyspace
	m     *machine.Machine // of a voter
	fed   bool             // all changes up to now went to ks, those to come follow
	at    int              // entries of the log that m has applied
	disk  mirrorDisk
	seen  uint64            // changes of the change log that were looked at
	shown map[string]uint64 // the highest seq shown of each key
}

// A mirrorDisk is what a restart finds: older than what is in memory.
type mirrorDisk struct {
	cells   []*crdt.Cell
	clock   *crdt.Clock
	pending crdt.Dots
	machine []byte
	at      int
}

func newMirrorWorld(t *testing.T, seed uint64, voters, others int, role gossip.Role) *mirrorWorld {
	w := &mirrorWorld{
		t: t, rng: rand.New(rand.NewPCG(seed, 5)), now: time.Now(), role: role,
		m: machine.New(), up: make(map[[2]int]bool), fly: make(map[[2]int][][]byte),
	}
	for i := range voters + others {
		n := &mirrorNode{id: i, voter: i < voters, disk: mirrorDisk{clock: crdt.NewClock()}}
		w.nodes = append(w.nodes, n)
		w.start(n)
	}
	w.pairs(w.connect)
	return w
}

func (w *mirrorWorld) pairs(do func(i, j int)) {
	for i := range w.nodes {
		for j := range i {
			do(i, j)
		}
	}
}

// start begins a process on what is on its disk.
func (w *mirrorWorld) start(n *mirrorNode) {
	w.incs++
	n.self = gossip.PeerID(fmt.Sprintf("n%d/%d", n.id, w.incs))
	env := testEnv()
	env.Name, env.Inc, env.Self = fmt.Sprintf("n%d", n.id), crdt.Inc(w.incs<<22), n.self
	ks, err := OpenMirror("ks~strong#1", mirrorOrigin, env, storage.KeyspaceState{
		Cells: slices.Clone(n.disk.cells), Clock: n.disk.clock.Clone(), Pending: slices.Clone(n.disk.pending),
	}, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	n.ks, n.seen, n.shown, n.fed = ks, 0, make(map[string]uint64), false
	if !n.voter {
		return
	}
	n.m, n.at = machine.New(), n.disk.at
	if n.disk.machine != nil {
		if err := n.m.Restore(bytes.NewReader(n.disk.machine)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// persist brings the state of n to its disk.
func (w *mirrorWorld) persist(n *mirrorNode) {
	r := n.ks.rep.Replica()
	n.disk = mirrorDisk{cells: slices.Collect(n.ks.index.All()), clock: r.Clock().Clone(), pending: r.Pending()}
	if n.voter {
		var b bytes.Buffer
		if err := n.m.View().Snapshot(&b); err != nil {
			w.t.Fatal(err)
		}
		n.disk.machine, n.disk.at = b.Bytes(), n.at
	}
}

func (w *mirrorWorld) restart(n *mirrorNode) {
	for _, o := range w.nodes {
		if o != n {
			w.cut(n.id, o.id)
		}
	}
	w.start(n)
}

func (w *mirrorWorld) connect(i, j int) {
	a, b := w.nodes[i], w.nodes[j]
	if w.up[[2]int{i, j}] {
		return
	}
	w.up[[2]int{i, j}], w.up[[2]int{j, i}] = true, true
	a.ks.LinkUp(w.now, b.self, w.role)
	b.ks.LinkUp(w.now, a.self, w.role)
}

func (w *mirrorWorld) cut(i, j int) {
	if !w.up[[2]int{i, j}] {
		return
	}
	delete(w.up, [2]int{i, j})
	delete(w.up, [2]int{j, i})
	delete(w.fly, [2]int{i, j})
	delete(w.fly, [2]int{j, i})
	w.nodes[i].ks.LinkDown(w.now, w.nodes[j].self)
	w.nodes[j].ks.LinkDown(w.now, w.nodes[i].self)
}

// commit appends a command to the log.
func (w *mirrorWorld) commit() {
	key := func() string { return fmt.Sprintf("k%d", w.rng.IntN(12)) }
	var body machine.Body
	switch w.rng.IntN(10) {
	case 0:
		body = &machine.Txn{Then: []machine.Op{&machine.Delete{Span: machine.Span{Key: key(), End: key()}}}}
		if s := body.(*machine.Txn).Then[0].(*machine.Delete).Span; s.End <= s.Key {
			body = &machine.Grant{TTL: 1000}
		}
	case 1, 2, 3:
		body = &machine.Txn{Then: []machine.Op{&machine.Delete{Span: machine.Span{Key: key()}}}}
	case 4:
		body = &machine.Compact{Revision: w.m.View().Status().Revision}
	case 5:
		if body = (&machine.Grant{TTL: 1000}); w.lease != 0 {
			body = &machine.Revoke{ID: w.lease}
		}
	default:
		body = &machine.Txn{Then: []machine.Op{&machine.Put{Key: key(), Value: fmt.Append(nil, len(w.log)), Lease: w.lease}}}
	}
	cmd, err := (&machine.Command{Wall: w.now.UnixMilli(), Body: body}).AppendBinary(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.log = append(w.log, cmd)
	res := w.m.Apply(uint64(len(w.log)), cmd)
	switch body.(type) {
	case *machine.Grant:
		w.lease = res.Lease
	case *machine.Revoke:
		w.lease = 0
	}
}

// apply lets the machine of a voter go on by one entry, which it feeds.
func (w *mirrorWorld) apply(n *mirrorNode) {
	if n.at == len(w.log) {
		return
	}
	n.at++
	res := n.m.Apply(uint64(n.at), w.log[n.at-1])
	if n.fed {
		if err := n.ks.Feed(w.now, bridge.Ops(mirrorOrigin, res.Changes)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// feedState brings the mirror of a voter up to its machine.
func (w *mirrorWorld) feedState(n *mirrorNode) {
	if err := n.ks.FeedState(w.t.Context(), bridge.StateOf(mirrorOrigin, n.m.View())); err != nil {
		w.t.Fatal(err)
	}
	n.fed = true
}

// run passes 5 ms: frames are made, and some of those under way arrive.
func (w *mirrorWorld) run() {
	time.Sleep(5 * time.Millisecond)
	w.now = time.Now()
	ticks := w.now.UnixMilli()%50 == 0
	for i, a := range w.nodes {
		if ticks {
			a.ks.Tick(w.now)
		}
		for j, b := range w.nodes {
			if !w.up[[2]int{i, j}] {
				continue
			}
			for {
				frame, ok := a.ks.NextFrame(w.now, b.self, nil, 64<<10)
				if !ok {
					break
				}
				w.fly[[2]int{i, j}] = append(w.fly[[2]int{i, j}], frame)
			}
		}
	}
	for i := range w.nodes {
		for j, to := range w.nodes {
			for q := w.fly[[2]int{i, j}]; len(q) > 0 && w.rng.IntN(4) > 0; q = w.fly[[2]int{i, j}] {
				w.fly[[2]int{i, j}] = q[1:]
				if err := to.ks.Step(w.now, w.nodes[i].self, q[0]); err != nil {
					w.t.Fatal(err)
				}
			}
		}
	}
	for _, n := range w.nodes {
		w.look(n)
	}
}

// look checks what watches of n are told: of each key, one state after another.
func (w *mirrorWorld) look(n *mirrorNode) {
	for log := &n.ks.log; n.seen < log.last.Load(); n.seen++ {
		c, _, _ := log.at(n.seen + 1)
		if c.next == nil {
			continue
		}
		if seq := c.next.Dot.Seq; seq <= n.shown[c.key()] {
			w.t.Fatalf("%s: %s shows %d after %d", n.self, c.key(), seq, n.shown[c.key()])
		}
		n.shown[c.key()] = c.next.Dot.Seq
	}
}

// settle lets everything arrive.
func (w *mirrorWorld) settle() {
	w.pairs(w.connect)
	for _, n := range w.nodes {
		if !n.voter {
			continue
		}
		if !n.fed {
			w.feedState(n)
		}
		for n.at < len(w.log) {
			w.apply(n)
		}
	}
	for range 24_000 { // 2 min
		if w.run(); w.now.UnixMilli()%1000 == 0 && w.equal() == "" {
			return
		}
	}
	w.t.Fatal(w.equal())
}

// equal says how a mirror differs from the machine, or nothing.
func (w *mirrorWorld) equal() string {
	st := bridge.StateOf(mirrorOrigin, w.m.View())
	want := make(map[string]string)
	for c := range st.Cells(func(uint64) bool { return true }) {
		want[c.Key] = fmt.Sprintf("%v %q %q %v", c.Dot, c.Value, c.Path, c.HLC)
	}
	for _, n := range w.nodes {
		got, cells := make(map[string]string), 0
		for c := range n.ks.index.All() {
			cells++
			got[c.Key] = fmt.Sprintf("%v %q %q %v", c.Dot, c.Value, c.Path, c.HLC)
		}
		r := n.ks.rep.Replica()
		e := r.Clock().Entry(mirrorOrigin)
		switch {
		case !maps.Equal(got, want) || cells != len(want):
			return fmt.Sprintf("%s holds\n%v, want\n%v", n.self, got, want)
		case e.Prefix != st.Seq() || len(e.Islands) > 0 || r.Clock().Len() > 1 || r.PendingLen() > 0:
			return fmt.Sprintf("%s knows %+v, want 1 to %d; pending %v", n.self, e, st.Seq(), r.Pending())
		}
	}
	return ""
}

// Three voters that feed, whoever leads, with restarts from older states, pauses of
// feeding and broken links, and two others: all come to exactly the state of the
// machine, and no watch sees an older value of a key after a newer one.
func TestMirrorsEqualTheMachine(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		mirrorsEqualTheMachine(t, seed)
	}
}

func mirrorsEqualTheMachine(t *testing.T, seed uint64) {
	t.Run(fmt.Sprint(seed), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newMirrorWorld(t, seed, 3, 2, []gossip.Role{gossip.RoleDirect, gossip.RoleTree}[seed%2])
			for range 1500 {
				if w.rng.IntN(3) == 0 {
					w.commit()
				}
				for _, n := range w.nodes[:3] {
					switch x := w.rng.IntN(200); {
					case x == 0 && n.fed: // nobody is there that wants it, for a while
						n.fed = false
						n.ks.StopFeeding(w.now)
					case x < 3 && !n.fed:
						w.feedState(n)
					default:
						for range w.rng.IntN(3) {
							w.apply(n)
						}
					}
				}
				n := w.nodes[w.rng.IntN(len(w.nodes))]
				switch x := w.rng.IntN(400); {
				case x < 4:
					w.persist(n)
				case x == 4:
					w.restart(n)
				case x < 15:
					w.cut(n.id, w.rng.IntN(len(w.nodes)))
				case x < 40:
					w.pairs(w.connect)
				}
				w.run()
			}
			w.settle()
		})
	})
}
