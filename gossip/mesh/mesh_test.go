package mesh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const patience = 20 * time.Second

func TestClusterForms(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, func(c *Config) { c.Zone, c.Roles, c.APIAddr = "z1", []string{"server", "edge"}, "127.0.0.1:99" })
	b := c.start("b", 12, nil, a.Addr())
	d := c.start("d", 13, nil, a.Addr())
	meet(patience, a, b, d)

	for _, m := range b.Members() {
		if m.Name == "a" {
			got := fmt.Sprint(m.Addr, m.Zone, m.Roles, m.APIAddr, m.Inc, m.Status)
			if want := fmt.Sprint(a.Addr(), "z1", []string{"edge", "server"}, "127.0.0.1:99", 11, StatusAlive); got != want {
				t.Errorf("member a: got %s, want %s", got, want)
			}
		}
	}
	b.mu.Lock()
	l := b.links["d"]
	b.mu.Unlock()
	for _, size := range []int{0, 1, writeChunk, writeChunk + 1, MaxFrame} {
		if err := l.WriteFrame(make([]byte, size)); err != nil {
			t.Fatalf("write %d: %v", size, err)
		}
	}
	d.until("frames", patience, func() bool { return d.frames["b"] == 5 })
	if err := l.WriteFrame(make([]byte, MaxFrame+1)); !errors.Is(err, ErrFrame) {
		t.Errorf("too large: got %v", err)
	}
}

func TestKilledAndBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, nil)
	b := c.start("b", 12, nil, a.Addr())
	d := c.start("d", 13, nil, a.Addr())
	meet(patience, a, b, d)
	d.kill()
	a.sees(patience, StatusFailed, "d")
	b.sees(patience, StatusFailed, "d")
	// It comes back at its address, without seeds: the others redial it.
	d = c.start("d", 14, func(c *Config) { c.Bind = d.Addr() })
	a.knows(patience, "d", 14)
	b.knows(patience, "d", 14)
	meet(patience, a, b, d)
}

// A process that starts again before it was found dead is known at once.
func TestRestartSupersedes(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		t.Run(fmt.Sprintf("same address %v", same), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			slow := func(c *Config) { c.Timings.SuspicionMult = 24 } // 4.8 s at least
			a := c.start("a", 11, slow)
			b := c.start("b", 12, slow, a.Addr())
			d := c.start("d", 13, slow, a.Addr())
			meet(patience, a, b, d)
			d.kill()
			bind := "127.0.0.1:0"
			if same {
				bind = d.Addr()
			}
			d = c.start("d", 14, func(c *Config) { slow(c); c.Bind = bind }, a.Addr())
			for _, n := range []*node{a, b} {
				n.knows(patience, "d", 14)
				n.mu.Lock()
				for _, e := range n.events {
					if e.Name == "d" && e.Status == StatusFailed {
						t.Errorf("%s had to see the old process fail first", n.self.name)
					}
				}
				n.mu.Unlock()
			}
			d.linked(patience, "a", "b")
			// Membership follows, and stays.
			for _, n := range []*node{a, b} {
				addr := d.Addr()
				n.until("membership", patience, func() bool {
					n.Mesh.mu.Lock()
					defer n.Mesh.mu.Unlock()
					m := n.roster.records["d"].member
					return m.Inc == 14 && m.Addr == addr && m.Status == StatusAlive
				})
			}
		})
	}
}

func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, nil)
	b := c.start("b", 12, nil, a.Addr())
	d := c.start("d", 13, nil, a.Addr())
	e := c.start("e", 14, nil, a.Addr())
	meet(patience, a, b, d, e)
	if err := c.net.Partition([]string{"a", "b"}, []string{"d", "e"}); err != nil {
		t.Fatal(err)
	}
	a.sees(patience, StatusFailed, "d", "e")
	b.sees(patience, StatusFailed, "d", "e")
	d.sees(patience, StatusFailed, "a", "b")
	e.sees(patience, StatusFailed, "a", "b")
	c.net.Heal()
	start := time.Now()
	meet(patience, a, b, d, e)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("healed after %v", took)
	}
}

// Both sides have forgotten each other; what was reaped while failed is still dialed.
func TestPartitionBeyondReap(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	reap := func(c *Config) { c.ReapAfter = 400 * time.Millisecond }
	a := c.start("a", 11, reap)
	b := c.start("b", 12, reap, a.Addr())
	meet(patience, a, b)
	c.net.Partition([]string{"a"}, []string{"b"})
	a.sees(patience, StatusReaped, "b")
	b.sees(patience, StatusReaped, "a")
	if got := a.Members(); len(got) != 1 {
		t.Errorf("members after the reaping: %v", got)
	}
	c.net.Heal()
	a.sees(patience, StatusAlive, "b")
	meet(patience, a, b)
}

func TestLeave(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, nil)
	b := c.start("b", 12, nil, a.Addr())
	d := c.start("d", 13, nil, a.Addr())
	meet(patience, a, b, d)
	if err := d.Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
	a.sees(patience, StatusLeft, "d")
	b.sees(patience, StatusLeft, "d")
	d.kill()
	if err := d.Leave(context.Background()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("leave after the end: %v", err)
	}
	d = c.start("d", 14, func(c *Config) { c.Bind = d.Addr() }, a.Addr())
	a.knows(patience, "d", 14)
	b.knows(patience, "d", 14)
	meet(patience, a, b, d)
}

func TestNameTaken(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, nil)
	b := c.start("b", 12, nil, a.Addr())
	meet(patience, a, b)
	twin := c.start("b", 13, nil, a.Addr())
	select {
	case err := <-twin.result:
		twin.result <- err
		if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), b.Addr()) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the twin goes on")
	}
	a.knows(patience, "b", 12) // the first one has it again
	meet(patience, a, b)
}

func TestOtherCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, nil)
	b := c.start("b", 12, nil, a.Addr())
	x := c.start("x", 13, func(c *Config) { c.Cluster = "other" }, a.Addr())
	meet(patience, a, b)
	timeout := time.After(patience)
	for x.Stats().DialFailures < 3 || a.Stats().LinksRefused < 3 {
		select {
		case <-timeout:
			t.Fatalf("%+v", x.Stats())
		case <-time.After(10 * time.Millisecond):
		}
	}
	for _, n := range []*node{a, b} {
		if len(n.Members()) != 2 {
			t.Errorf("%s: members %v", n.self.name, n.Members())
		}
	}
}

func TestAddrInUse(t *testing.T) {
	c := newCluster(t)
	a := c.start("a", 11, nil)
	_, err := New(Config{Name: "b", Inc: 1, Bind: a.Addr()})
	if !errors.Is(err, ErrAddrInUse) || !strings.Contains(err.Error(), a.Addr()) {
		t.Errorf("got %v", err)
	}
}
