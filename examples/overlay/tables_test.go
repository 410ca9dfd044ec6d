package overlay

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func testNode(i int) Node {
	name := fmt.Sprintf("h%d", i)
	return Node{
		Name: name, VNI: 42, MAC: DeriveMAC(name),
		VTEP:   netip.AddrFrom4([4]byte{10, 250, 0, byte(i)}),
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(i), 0}), 24),
		Token:  uint64(i),
	}
}

// testLeases are the claims of all test nodes to their subnets.
func testLeases() (claims []Claim) {
	for i := 1; i <= 9; i++ {
		claims = append(claims, testNode(i).lease())
	}
	return claims
}

// testMove is the claim of an address that moved.
func testMove(home, j, at int, token uint64) Claim {
	return Claim{address(testEndpoint(home, j, at, token).IP), fmt.Sprintf("h%d", at), token}
}

func testEndpoint(home, j, at int, token uint64) Endpoint {
	name := fmt.Sprintf("c%d-%d", home, j)
	return Endpoint{
		IP: netip.AddrFrom4([4]byte{10, 99, byte(home), byte(j + 1)}), MAC: DeriveMAC(name),
		Node: fmt.Sprintf("h%d", at), Name: name, Token: token,
	}
}

// tables is nodes' and endpoints' entries, written down: the gateway of each
// host in hosts, and each endpoint at the host that it says.
func tables(hosts []Node, endpoints ...Endpoint) Tables {
	t := NewTables()
	vtep := map[string]netip.Addr{}
	for i := 1; i <= 9; i++ {
		vtep[testNode(i).Name] = testNode(i).VTEP
	}
	for _, n := range hosts {
		t.Forwards[Forward{n.MAC, n.VTEP}] = true
		t.Neighbours[n.Gateway()] = n.MAC
	}
	for _, p := range endpoints {
		t.Forwards[Forward{p.MAC, vtep[p.Node]}] = true
		t.Neighbours[p.IP] = p.MAC
	}
	return t
}

func TestDesired(t *testing.T) {
	h1, h2, h3 := testNode(1), testNode(2), testNode(3)
	foreign := testNode(3)
	foreign.VNI = 7
	sameMAC := testEndpoint(3, 1, 3, 3)
	sameMAC.MAC = testEndpoint(2, 1, 2, 2).MAC
	secondIP := testEndpoint(2, 2, 2, 2)
	secondIP.MAC = testEndpoint(2, 1, 2, 2).MAC
	onGateway := testEndpoint(2, 0, 2, 2) // 10.99.2.1
	stolenSubnet := testNode(3)
	stolenSubnet.Subnet, stolenSubnet.Token = h2.Subnet, h2.Token
	formerLease := testNode(2)
	formerLease.Token = 1
	home, moved := testEndpoint(2, 1, 2, 2), testEndpoint(2, 1, 3, 20)
	leases, withMove := testLeases(), append(testLeases(), testMove(2, 1, 3, 20))

	for _, c := range []struct {
		name      string
		nodes     []Node
		endpoints []Endpoint
		claims    []Claim // nil: the leases
		fences    Fences
		want      Tables
		refused   Refused
	}{
		{name: "empty", want: tables(nil)},
		{name: "own records need no entry", nodes: []Node{h1}, endpoints: []Endpoint{testEndpoint(1, 1, 1, 1)}, want: tables(nil)},
		{
			name: "remote records", nodes: []Node{h1, h2}, endpoints: []Endpoint{home, testEndpoint(2, 2, 2, 2)},
			want: tables([]Node{h2}, home, testEndpoint(2, 2, 2, 2)),
		},
		{
			name: "endpoints without their host", nodes: []Node{h1}, endpoints: []Endpoint{home},
			want: tables(nil), refused: Refused{NoNode: 1},
		},
		{
			name: "another network", nodes: []Node{h1, foreign}, endpoints: []Endpoint{testEndpoint(3, 1, 3, 3)},
			want: tables(nil), refused: Refused{OtherVNI: 1, NoNode: 1},
		},
		{
			name: "no lease", nodes: []Node{h1, h2}, endpoints: []Endpoint{home}, claims: []Claim{h1.lease()},
			want: tables(nil), refused: Refused{Unowned: 1, NoNode: 1},
		},
		{
			name: "records of a former lease", nodes: []Node{h1, formerLease}, endpoints: []Endpoint{testEndpoint(2, 1, 2, 1)},
			want: tables(nil), refused: Refused{Unowned: 1, NoNode: 1},
		},
		{
			name: "an endpoint of a former lease", nodes: []Node{h1, h2}, endpoints: []Endpoint{testEndpoint(2, 1, 2, 1)},
			want: tables([]Node{h2}), refused: Refused{Unowned: 1},
		},
		{
			name: "a former state, a later lease was seen", nodes: []Node{h1, h2}, endpoints: []Endpoint{home}, fences: Fences{h2.Subnet: 9},
			want: tables(nil), refused: Refused{Fenced: 1, NoNode: 1},
		},
		{
			name: "a former state, a later move was seen", nodes: []Node{h1, h2}, endpoints: []Endpoint{home}, fences: Fences{address(home.IP): 9},
			want: tables([]Node{h2}), refused: Refused{Fenced: 1},
		},
		{
			name: "not at home and not moved", nodes: []Node{h1, h2, h3}, endpoints: []Endpoint{testEndpoint(2, 1, 3, 3)},
			want: tables([]Node{h2, h3}), refused: Refused{Unowned: 1},
		},
		{
			name: "not at home, with the token of its home", nodes: []Node{h1, h2, h3}, endpoints: []Endpoint{testEndpoint(2, 1, 3, 2)},
			want: tables([]Node{h2, h3}), refused: Refused{Unowned: 1},
		},
		{
			name: "moved, the old record still there", nodes: []Node{h1, h2, h3}, endpoints: []Endpoint{home, moved}, claims: withMove,
			want: tables([]Node{h2, h3}, moved), refused: Refused{Unowned: 1},
		},
		{
			name: "announced, and no move in sight", nodes: []Node{h1, h2, h3}, endpoints: []Endpoint{home, moved},
			want: tables([]Node{h2, h3}, home), refused: Refused{Unowned: 1},
		},
		{
			name: "moved here, the old record still there", nodes: []Node{h1, h2}, endpoints: []Endpoint{home, testEndpoint(2, 1, 1, 20)},
			claims: append(testLeases(), testMove(2, 1, 1, 20)),
			want:   tables([]Node{h2}), refused: Refused{Unowned: 1},
		},
		{
			name: "moved away, our record still there", nodes: []Node{h1, h2}, endpoints: []Endpoint{testEndpoint(1, 1, 1, 1), testEndpoint(1, 1, 2, 20)},
			claims: append(testLeases(), testMove(1, 1, 2, 20)),
			want:   tables([]Node{h2}, testEndpoint(1, 1, 2, 20)), refused: Refused{Unowned: 1},
		},
		{
			name: "moved to a host that died: its address until its session ends", nodes: []Node{h1, h2}, endpoints: []Endpoint{home, moved}, claims: withMove,
			want: tables([]Node{h2}), refused: Refused{NoNode: 1, Unowned: 1},
		},
		{
			name: "moved out of a /24 that nobody leases now", nodes: []Node{h1, h3}, endpoints: []Endpoint{moved},
			claims: []Claim{h1.lease(), h3.lease(), testMove(2, 1, 3, 20)},
			want:   tables([]Node{h3}, moved),
		},
		{
			name: "one MAC at two hosts: the later claim", nodes: []Node{h1, h2, h3}, endpoints: []Endpoint{home, sameMAC},
			want: tables([]Node{h2, h3}, sameMAC), refused: Refused{Outdated: 1},
		},
		{
			name: "one MAC with two addresses at one host", nodes: []Node{h1, h2}, endpoints: []Endpoint{home, secondIP},
			want: tables([]Node{h2}, home, secondIP),
		},
		{
			name: "an endpoint on the gateway's address", nodes: []Node{h1, h2}, endpoints: []Endpoint{onGateway},
			want: tables([]Node{h2}), refused: Refused{Outdated: 1},
		},
		{
			name: "two hosts with one subnet", nodes: []Node{h1, h2, stolenSubnet}, endpoints: []Endpoint{testEndpoint(2, 1, 3, 2)},
			want: tables([]Node{h2}), refused: Refused{Unowned: 1, NoNode: 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.claims == nil {
				c.claims = leases
			}
			got, refused := Desired("h1", 42, Records{c.nodes, c.endpoints, c.claims}, c.fences)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("Desired = %v, want %v", got, c.want)
			}
			if refused != c.refused {
				t.Errorf("refused %+v, want %+v", refused, c.refused)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	a, b, c := DeriveMAC("a"), DeriveMAC("b"), DeriveMAC("c")
	v1, v2 := netip.MustParseAddr("10.250.0.1"), netip.MustParseAddr("10.250.0.2")
	ip1, ip2, ip3 := netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("10.99.0.3")
	want := Tables{
		Forwards:   map[Forward]bool{{a, v1}: true, {b, v2}: true},
		Neighbours: map[netip.Addr]MAC{ip1: a, ip2: b},
	}
	have := Tables{
		Forwards:   map[Forward]bool{{a, v1}: true, {b, v1}: true, {c, v1}: true},
		Neighbours: map[netip.Addr]MAC{ip1: c, ip3: b},
	}
	got := Diff(want, have)
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"set forwards", got.SetForward, []Forward{{b, v2}}},
		{"set neighbours", got.SetNeighbour, []Neighbour{{ip1, a}, {ip2, b}}},
		{"dropped neighbours", got.DropNeighbour, []Neighbour{{ip3, b}}},
		{"number of dropped forwards", len(got.DropForward), 2},
		{"length", got.Len(), 6},
	} {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("%s: %v, want %v", check.what, check.got, check.want)
		}
	}
}

// fakeKernel behaves like a VXLAN device: setting a forward replaces the first
// tunnel end of its MAC, and dropping a neighbour drops it whatever its MAC.
type fakeKernel struct{ Tables }

func (k fakeKernel) apply(c Changes) {
	for _, f := range c.SetForward {
		for g := range k.Forwards {
			if g.MAC == f.MAC {
				delete(k.Forwards, g)
				break
			}
		}
		k.Forwards[f] = true
	}
	for _, n := range c.SetNeighbour {
		k.Neighbours[n.IP] = n.MAC
	}
	for _, f := range c.DropForward {
		delete(k.Forwards, f)
	}
	for _, n := range c.DropNeighbour {
		delete(k.Neighbours, n.IP)
	}
}

func genTables(t *rapid.T, name string, hosts int) Tables {
	tb := NewTables()
	macs := rapid.SampledFrom([]MAC{DeriveMAC("a"), DeriveMAC("b"), DeriveMAC("c")})
	for range rapid.IntRange(0, 5).Draw(t, name+" forwards") {
		f := Forward{macs.Draw(t, "mac"), testNode(rapid.IntRange(1, hosts).Draw(t, "vtep")).VTEP}
		tb.Forwards[f] = true
	}
	for range rapid.IntRange(0, 4).Draw(t, name+" neighbours") {
		tb.Neighbours[testEndpoint(1, rapid.IntRange(1, 3).Draw(t, "ip"), 1, 0).IP] = macs.Draw(t, "mac")
	}
	return tb
}

// Applying a difference to a kernel that behaves like Linux makes it equal, if
// each MAC is wanted once, whatever it held.
func TestDiffMakesTheKernelEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want, k := genTables(t, "want", 1), fakeKernel{genTables(t, "have", 3)}
		k.apply(Diff(want, k.Tables))
		if !reflect.DeepEqual(k.Tables, want) {
			t.Fatalf("the kernel holds %v, want %v", k.Tables, want)
		}
		if c := Diff(want, k.Tables); c.Len() != 0 {
			t.Fatalf("equal tables differ: %+v", c)
		}
	})
}

// Whatever the records and their order, a kernel has one tunnel end for each
// MAC, a way to each neighbour, which is at its owner, and never an entry that
// leads to itself; and every host that sees the same records sends an address to the same place.
func TestDesiredIsConsistent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []Node
		for i := 1; i <= 3; i++ {
			if rapid.Bool().Draw(t, "node exists") {
				nodes = append(nodes, testNode(i))
			}
		}
		var endpoints []Endpoint
		seen := map[string]bool{}
		claims := []Claim{testNode(1).lease(), testNode(2).lease()}
		for j := 1; j <= 2; j++ { // not the gateway
			if rapid.Bool().Draw(t, "moved") {
				claims = append(claims, testMove(1, j, rapid.IntRange(1, 3).Draw(t, "to"), rapid.Uint64Range(1, 3).Draw(t, "token")))
			}
		}
		owners := NewClaims(claims)
		for range rapid.IntRange(0, 8).Draw(t, "endpoints") {
			p := testEndpoint(rapid.IntRange(1, 3).Draw(t, "home"), rapid.IntRange(0, 2).Draw(t, "j"),
				rapid.IntRange(1, 3).Draw(t, "at"), rapid.Uint64Range(1, 3).Draw(t, "token"))
			p.MAC = DeriveMAC(rapid.SampledFrom([]string{"a", "b", "c", "h2"}).Draw(t, "mac"))
			p.Modified = time.Unix(rapid.Int64Range(0, 1).Draw(t, "modified"), 0)
			if !seen[p.Key()] {
				seen[p.Key()] = true
				endpoints = append(endpoints, p)
			}
		}
		place := map[netip.Addr]map[netip.Addr]bool{}
		for i := 1; i <= 3; i++ {
			self := testNode(i)
			got, refused := Desired(self.Name, 42, Records{nodes, endpoints, claims}, nil)
			shuffled, refused2 := Desired(self.Name, 42, Records{
				rapid.Permutation(nodes).Draw(t, "nodes"), rapid.Permutation(endpoints).Draw(t, "order"), rapid.Permutation(claims).Draw(t, "claims"),
			}, nil)
			if !reflect.DeepEqual(got, shuffled) || refused != refused2 {
				t.Fatalf("order matters: %v %v, %v %v", got, refused, shuffled, refused2)
			}
			end := map[MAC]netip.Addr{}
			for f := range got.Forwards {
				if _, twice := end[f.MAC]; twice {
					t.Fatalf("%v has two tunnel ends", f.MAC)
				}
				if f.VTEP == self.VTEP {
					t.Fatalf("%v leads %s to itself", f.MAC, self.Name)
				}
				end[f.MAC] = f.VTEP
			}
			for ip, mac := range got.Neighbours {
				to, ok := end[mac]
				if !ok {
					t.Fatalf("no way to neighbour %v", ip)
				}
				owner, _ := owners.Owner(ip)
				if !slices.ContainsFunc(nodes, func(n Node) bool { return n.VTEP == to && n.Name == owner.Node }) {
					t.Fatalf("%v leads to %v, which is not its owner %q", ip, to, owner.Node)
				}
				if place[ip] == nil {
					place[ip] = map[netip.Addr]bool{}
				}
				place[ip][to] = true
			}
		}
		for ip, ends := range place {
			if len(ends) > 1 {
				t.Fatalf("hosts disagree about %v: %v", ip, slices.Collect(maps.Keys(ends)))
			}
		}
	})
}
