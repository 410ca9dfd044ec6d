package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// lose ends the session of the agent's present lease, as its expiry does; early, only
// for the agent, and not yet at the servers.
func (s *fakeStrong) lose(t *testing.T, early bool) {
	s.mu.Lock()
	x := s.sessions[len(s.sessions)-1]
	s.mu.Unlock()
	if early {
		x.once.Do(func() { close(x.lost) })
		return
	}
	if err := x.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// announced is the tokens of the records that host h1 has in the eventual keyspaces.
func announced(t *testing.T, c *fakeCluster) map[string]uint64 {
	t.Helper()
	tokens := map[string]uint64{}
	for _, e := range c.space(EndpointsKeyspace).all() {
		if p, err := DecodeEndpoint(e); err != nil {
			t.Error(err)
		} else if p.Node == "h1" {
			tokens[p.Name] = p.Token
		}
	}
	if e, ok := c.space(NodesKeyspace).all()["h1"]; ok {
		n, err := DecodeNode(e)
		if err != nil {
			t.Error(err)
		}
		tokens[n.Subnet.String()] = n.Token
	}
	return tokens
}

func wantAnnounced(t *testing.T, c *fakeCluster, what string, want map[string]uint64) {
	t.Helper()
	synctest.Wait()
	got := announced(t, c)
	for name, token := range want {
		if got[name] != token {
			t.Errorf("%s: %s has token %d, want %d", what, name, got[name], token)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("%s: announced besides: %v", what, got)
	}
}

// An agent whose session is lost stops announcing at once, asks for the same /24 and
// announces all anew, under later tokens.
func TestAgentLeasesAnew(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprintf("early %v", early), func(t *testing.T) { testLeasesAnew(t, early) })
	}
}

func testLeasesAnew(t *testing.T, early bool) {
	synctest.Test(t, func(t *testing.T) {
		c, k := &fakeCluster{}, &lockedKernel{k: fakeKernel{NewTables()}}
		publish(t, c, NodesKeyspace, testNode(2))
		home, guest := testEndpoint(1, 1, 1, 0), testEndpoint(2, 1, 1, 0)
		a, expect := runAgent(t, c, k, home)
		if _, err := a.Claim(t.Context(), guest.IP); err != nil {
			t.Fatal(err)
		}
		if err := a.Attach(t.Context(), guest); err != nil {
			t.Fatal(err)
		}
		wantAnnounced(t, c, "at first", map[string]uint64{"10.99.1.0/24": 1, "c1-1": 1, "c2-1": 102})
		before := a.Report()

		c.ipam.lose(t, early)
		wantAnnounced(t, c, "without a lease", nil)
		if r := a.Report(); r.Lease.Token != 0 {
			t.Errorf("report without a lease: %+v", r.Lease)
		}
		time.Sleep(time.Second)
		wantAnnounced(t, c, "under the new lease", map[string]uint64{"10.99.1.0/24": 3, "c1-1": 3, "c2-1": 104})
		if want := []uint64{number(netip.MustParseAddr("10.99.1.0"))}; !slices.Equal(c.ipam.exact, want) {
			t.Errorf("asked for %d, want %d", c.ipam.exact, want)
		}
		if r := a.Report(); r.Leases != before.Leases+1 || r.Lease.Token != 3 || r.Dropped != 0 {
			t.Errorf("report %+v after %+v", r, before)
		}
		expect("in the end", tables([]Node{testNode(2)}))
	})
}

// An agent whose /24 went to another host takes another one. What ran in the first one
// keeps its address only while nobody leases that.
func TestAgentWhoseBlockIsGone(t *testing.T) {
	for _, leased := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c, k := &fakeCluster{}, &lockedKernel{k: fakeKernel{NewTables()}}
			home := testEndpoint(1, 1, 1, 0)
			a, _ := runAgent(t, c, k, home)
			wantAnnounced(t, c, "at first", map[string]uint64{"10.99.1.0/24": 1, "c1-1": 1})
			c.ipam.mu.Lock()
			c.ipam.taken, c.ipam.next = true, 7
			c.ipam.mu.Unlock()
			c.ipam.lose(t, false)
			want := map[string]uint64{"10.99.7.0/24": 2, "c1-1": 103}
			if leased {
				publish(t, c, IPAMKeyspace, Claim{block(home.IP), "h5", 50})
				delete(want, "c1-1")
			}
			time.Sleep(time.Second)
			wantAnnounced(t, c, "under the new lease", want)
			if r := a.Report(); (r.Dropped == 1) != leased {
				t.Errorf("leased by another %v: dropped %d", leased, r.Dropped)
			}
			if err := a.Attach(t.Context(), testEndpoint(1, 2, 1, 0)); !errors.Is(err, ErrNotOwner) {
				t.Errorf("Attach in the former /24 = %v, want ErrNotOwner", err)
			}
		})
	}
}

// An address that has moved away cannot be announced at home, even after a new lease.
func TestAgentDoesNotAnnounceWhatMovedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := &fakeCluster{}, &lockedKernel{k: fakeKernel{NewTables()}}
		publish(t, c, NodesKeyspace, testNode(2))
		home, away := testEndpoint(1, 1, 1, 0), testMove(1, 1, 2, 50)
		a, _ := runAgent(t, c, k, home)
		publish(t, c, IPAMKeyspace, away)
		synctest.Wait()
		if err := a.Attach(t.Context(), home); !errors.Is(err, ErrNotOwner) {
			t.Errorf("Attach = %v, want ErrNotOwner", err)
		}
		c.ipam.lose(t, false)
		time.Sleep(time.Second)
		wantAnnounced(t, c, "under a new lease", map[string]uint64{"10.99.1.0/24": 2})
		if r := a.Report(); r.Dropped != 1 {
			t.Errorf("dropped %d, want 1", r.Dropped)
		}
		// Its move has ended: the lease is older than what was seen, until it is claimed.
		c.space(IPAMKeyspace).remove(away.Key(), "")
		synctest.Wait()
		if err := a.Attach(t.Context(), home); !errors.Is(err, ErrNotOwner) {
			t.Errorf("Attach without a new claim = %v, want ErrNotOwner", err)
		}
		if _, err := a.Claim(t.Context(), home.IP); err != nil {
			t.Fatal(err)
		}
		if err := a.Attach(t.Context(), home); err != nil {
			t.Errorf("Attach after a claim = %v", err)
		}
	})
}

func TestAgentRefusesToClaimAGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := runAgent(t, &fakeCluster{}, &lockedKernel{k: fakeKernel{NewTables()}})
		for _, ip := range []string{"10.99.2.1", "10.98.0.2"} {
			if _, err := a.Claim(t.Context(), netip.MustParseAddr(ip)); err == nil {
				t.Errorf("%s was claimed", ip)
			}
		}
	})
}
