//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshkv/meshkv/examples/overlay"
	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

// TestMain makes the test binary its own agent.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "agent" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := Dir(os.Args[2]).RunAgent(ctx, os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func needLab(t *testing.T) {
	t.Helper()
	if err := Probe(); err != nil {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: %v", err)
	}
}

// newDir returns a lab directory and prefix, and checks in the end that
// nothing of the lab is left.
func newDir(t *testing.T, kind string) (Dir, string) {
	prefix := fmt.Sprintf("mkvt%d%s", os.Getpid(), kind)
	d := Dir(filepath.Join(t.TempDir(), "lab"))
	if err := os.Mkdir(string(d), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s, _ := d.Load()
		if t.Failed() && s != nil {
			for _, h := range s.Hosts {
				if log, err := os.ReadFile(filepath.Join(d.HostDir(h.Name), "agent.log")); err == nil {
					t.Logf("log of %s:\n%s", h.Name, log[max(0, len(log)-3000):])
				}
			}
		}
		for range 2 {
			if err := d.Down(context.Background()); err != nil {
				t.Errorf("Down: %v", err)
			}
		}
		if s != nil {
			for _, h := range s.Hosts {
				if h.Agent.Alive() {
					t.Errorf("the agent of %s is left behind", h.Name)
				}
			}
		}
		if left, err := netlab.Namespaces(prefix); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		d.Clean()
		if _, err := os.Stat(string(d)); !errors.Is(err, os.ErrNotExist) {
			files, _ := os.ReadDir(string(d))
			t.Errorf("left behind in %s: %v", d, files)
		}
	})
	return d, prefix
}

func up(t *testing.T, d Dir, prefix string, hosts, containers int) *State {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Up(t.Context(), UpOptions{Prefix: prefix, Hosts: hosts, Containers: containers, Agent: []string{self, "agent"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func settle(t *testing.T, s *State, what string, within time.Duration) {
	t.Helper()
	settled, err := s.Settle(t.Context(), within)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, v := range s.Verify(t.Context()) {
		if !v.OK() {
			t.Errorf("%s: kernel and store of %s differ: %+v, %v", what, v.Host, v.Differ, v.Err)
		}
	}
	if c := s.VerifyLeases(t.Context()); c.Err != nil || c.Leases < len(s.Live()) {
		t.Errorf("%s: %d leases of %d live hosts, %v", what, c.Leases, len(s.Live()), c.Err)
	}
	t.Logf("%s: settled %v", what, settled)
}

func pingAll(t *testing.T, s *State, what string) {
	t.Helper()
	pings := s.PingAll(t.Context(), 5)
	if len(pings) == 0 {
		t.Errorf("%s: nobody pinged", what)
	}
	for _, p := range pings {
		if !p.OK() {
			t.Errorf("%s: %s to %s: replied %v, want %v, %v", what, p.From, p.To, p.Replied, p.Expected, p.Err)
		}
	}
}

// The whole life of a lab, through real processes and the real kernel.
func TestLab(t *testing.T) {
	needLab(t)
	t.Parallel()
	d, prefix := newDir(t, "l")
	s := up(t, d, prefix, 3, 2)
	if _, err := d.Up(t.Context(), UpOptions{Prefix: prefix, Hosts: 1}); !errors.Is(err, ErrExists) {
		t.Errorf("a second Up = %v, want ErrExists", err)
	}
	settle(t, s, "after up", 30*time.Second)
	pingAll(t, s, "after up")

	// What the check and the repair are for: a wrong kernel.
	h1, err := s.Host("h1")
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, s, *h1, overlay.Changes{
		SetForward:    []overlay.Forward{{MAC: overlay.DeriveMAC("stale"), VTEP: netip.MustParseAddr("10.250.0.3")}},
		DropNeighbour: []overlay.Neighbour{{IP: s.Containers[2].IP}},
	})
	for _, v := range s.Verify(t.Context()) {
		if want := v.Host != "h1"; v.Err != nil || v.OK() != want {
			t.Errorf("after h1 was spoilt: %s OK %v (%+v, %v), want %v", v.Host, v.OK(), v.Differ, v.Err, want)
		}
	}
	settle(t, s, "after the repair", 5*time.Second)

	if err := d.Move(t.Context(), s, "c1-1", "h2"); err != nil {
		t.Fatal(err)
	}
	settle(t, s, "after the move", 10*time.Second)
	pingAll(t, s, "after the move")

	if err := d.Kill(t.Context(), s, "h3", false); err != nil {
		t.Fatal(err)
	}
	settle(t, s, "after the kill", 10*time.Second)
	pingAll(t, s, "after the kill")
}

func spoil(t *testing.T, s *State, h Host, c overlay.Changes) {
	t.Helper()
	nl, err := s.namespace(h.Name).Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	dev, err := overlay.OpenDevice(nl, vxlanLink)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Apply(c); err != nil {
		t.Fatal(err)
	}
}

// A partition hides each side's hosts from the other, and healing it brings
// them back.
func TestLabPartition(t *testing.T) {
	needLab(t)
	t.Parallel()
	d, prefix := newDir(t, "p")
	s := up(t, d, prefix, 2, 1)
	settle(t, s, "after up", 30*time.Second)
	if err := d.Partition(s, [][]string{{"h1"}, {"h2"}}); err != nil {
		t.Fatal(err)
	}
	settle(t, s, "in the partition", 30*time.Second)
	pingAll(t, s, "in the partition")
	dropped, err := d.Heal(s)
	if err != nil || dropped.Packets == 0 {
		t.Fatalf("Heal = %+v, %v, want dropped packets: without them there was no partition", dropped, err)
	}
	settle(t, s, "after healing", 30*time.Second)
	pingAll(t, s, "after healing")
}

// Down removes what an Up that crashed at any of its steps has left, and ends
// no process that is not recorded.
func TestDownAfterCrash(t *testing.T) {
	needLab(t)
	for _, step := range []string{"planned", "switch", "host", "started"} {
		t.Run(step, func(t *testing.T) {
			d, prefix := newDir(t, "d")
			s, err := Plan(prefix, 2, 1)
			if err != nil {
				t.Fatal(err)
			}
			other := exec.Command("sleep", "600")
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { other.Process.Kill(); other.Wait() }()
			// A recycled pid: the record is of a process that is gone.
			s.Hosts[1].Agent = netlab.Process{PID: other.Process.Pid, Start: 1, Cmd: "sleep 600"}
			if err := d.Save(s); err != nil {
				t.Fatal(err)
			}
			if step == "planned" {
				return
			}
			if err := s.Switch().Create(); err != nil {
				t.Fatal(err)
			}
			if step == "switch" {
				return
			}
			if err := s.buildHost(s.Hosts[0]); err != nil {
				t.Fatal(err)
			}
			if step == "started" {
				if err := d.startAgent(s, &s.Hosts[0], []string{"/bin/sleep", "600", "600"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Down(t.Context()); err != nil {
				t.Error(err)
			}
			if err := other.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("Down ended a process that the lab had not started: %v", err)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	s, err := Plan("lab", 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, ns := range s.Namespaces() {
		if seen[ns.Name] || !strings.HasPrefix(ns.Name, "lab-") {
			t.Errorf("namespace %s is double or without its prefix", ns.Name)
		}
		seen[ns.Name] = true
	}
	if len(seen) != 1+2+4 {
		t.Errorf("%d namespaces, want 7", len(seen))
	}
	for i := range s.Hosts {
		s.settleIn(&s.Hosts[i], overlay.Claim{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(9 - i), 0}), 24), Node: s.Hosts[i].Name, Token: uint64(i + 1)})
	}
	addresses := map[netip.Addr]bool{}
	for _, c := range s.Containers {
		if addresses[c.IP] {
			t.Errorf("two containers have %v", c.IP)
		}
		addresses[c.IP] = true
		h, err := s.Host(c.Host)
		if err != nil || !h.Subnet.Contains(c.IP) || c.IP == h.Node().Gateway() {
			t.Errorf("container %+v is not at home in %+v, %v", c, h, err)
		}
	}
	for name, bad := range map[string]func() (*State, error){
		"no host":             func() (*State, error) { return Plan("lab", 0, 1) },
		"too many hosts":      func() (*State, error) { return Plan("lab", MaxHosts+1, 1) },
		"too many containers": func() (*State, error) { return Plan("lab", 1, MaxContainers+1) },
		"negative":            func() (*State, error) { return Plan("lab", 1, -1) },
		"no prefix":           func() (*State, error) { return Plan("", 1, 1) },
		"a path for a prefix": func() (*State, error) { return Plan("../x", 1, 1) },
	} {
		if s, err := bad(); err == nil {
			t.Errorf("%s: %+v, want an error", name, s)
		}
	}
}

func TestServers(t *testing.T) {
	for hosts, want := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3, 9: 3} {
		s, err := Plan("lab", hosts, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Servers(); len(got) != want || got[0] != "h1" {
			t.Errorf("%d hosts: servers %v, want %d", hosts, got, want)
		}
	}
}

func TestConnected(t *testing.T) {
	s := &State{Groups: [][]string{{"h1", "h2"}, {"h3"}}}
	for _, c := range []struct {
		a, b string
		want bool
	}{{"h1", "h2", true}, {"h1", "h3", false}, {"h3", "h2", false}, {"h4", "h1", true}, {"h4", "h3", true}, {"h3", "h3", true}} {
		if got := s.connected(c.a, c.b); got != c.want {
			t.Errorf("connected(%s, %s) = %v, want %v", c.a, c.b, got, c.want)
		}
	}
	if s := (&State{}); !s.connected("h1", "h3") {
		t.Error("no partition, yet not connected")
	}
}
