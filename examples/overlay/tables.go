package overlay

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
)

// A Forward is one entry of the VXLAN device's forwarding table: frames to
// MAC go to the tunnel end VTEP.
type Forward struct {
	MAC  MAC
	VTEP netip.Addr
}

// Compare orders by MAC, then VTEP.
func (f Forward) Compare(g Forward) int {
	return cmp.Or(bytes.Compare(f.MAC[:], g.MAC[:]), f.VTEP.Compare(g.VTEP))
}

// Tables is what the kernel holds, or should hold, on the VXLAN device.
type Tables struct {
	// Forwards is a set of pairs, since a kernel may hold several tunnel ends
	// for one MAC. Desired tables have one.
	Forwards map[Forward]bool
	// Neighbours are answered by the device in place of flooded ARP.
	Neighbours map[netip.Addr]MAC
}

// NewTables returns empty tables.
func NewTables() Tables {
	return Tables{Forwards: map[Forward]bool{}, Neighbours: map[netip.Addr]MAC{}}
}

// Refused counts records that have no effect, by reason.
type Refused struct {
	NoNode   int `json:"no_node"`   // the endpoint's host is not known, or not in this network
	Unowned  int `json:"unowned"`   // its address is neither in the /24 that its host leases nor moved there, under its token
	Fenced   int `json:"fenced"`    // a later token has been seen for its address
	Outdated int `json:"outdated"`  // another record has a better claim to its IP or MAC
	OtherVNI int `json:"other_vni"` // hosts of another network
}

// Records are all records of the store.
type Records struct {
	Nodes     []Node
	Endpoints []Endpoint
	Claims    []Claim
}

// Desired decides what the kernel of the host self should hold, given all
// records of the store and what was seen before. It does not depend on the
// order of its arguments.
//
// A host or an endpoint counts only under the token of the claim that its
// address belongs to. Each MAC belongs to one host: the one with the highest
// token, and among equals the youngest. Hosts' own addresses come before any
// endpoint's. Records of self compete, but need no entry: they are reached
// through the local bridge.
func Desired(self string, vni int, r Records, fences Fences) (Tables, Refused) {
	t := NewTables()
	var refused Refused

	claims := NewClaims(r.Claims)
	known := map[string]Node{}
	holder := map[netip.Addr]bool{}
	host := map[MAC]string{} // whose tunnel a MAC is behind
	claim := func(ip netip.Addr, mac MAC, n Node) bool {
		if h, taken := host[mac]; holder[ip] || taken && h != n.Name {
			return false
		}
		holder[ip], host[mac] = true, n.Name
		if n.Name != self {
			t.Forwards[Forward{mac, n.VTEP}] = true
			t.Neighbours[ip] = mac
		}
		return true
	}

	nodes := slices.SortedFunc(slices.Values(r.Nodes), func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		switch {
		case n.VNI != vni:
			refused.OtherVNI++
		case claims[n.Subnet] != n.lease():
			refused.Unowned++
		case fences.Refuse(n.lease(), n.Gateway()):
			refused.Fenced++
		case !claim(n.Gateway(), n.MAC, n):
			refused.Outdated++
		default:
			known[n.Name] = n
		}
	}

	endpoints := slices.SortedFunc(slices.Values(r.Endpoints), func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(b.Token, a.Token), b.Modified.Compare(a.Modified), cmp.Compare(a.Key(), b.Key()))
	})
	for _, p := range endpoints {
		n, ok := known[p.Node]
		owner, claimed := claims.Owner(p.IP)
		switch {
		case !ok:
			refused.NoNode++
		case !claimed || owner.Node != p.Node || owner.Token != p.Token:
			refused.Unowned++
		case fences.Refuse(owner, p.IP):
			refused.Fenced++
		case !claim(p.IP, p.MAC, n):
			refused.Outdated++
		}
	}
	return t, refused
}

// Changes turn one state of the kernel into another. Sets come before
// deletes, so that an endpoint that moved is never unreachable in between.
type Changes struct {
	SetForward    []Forward // replaces the MAC's former tunnel end
	SetNeighbour  []Neighbour
	DropForward   []Forward // may be gone already, replaced
	DropNeighbour []Neighbour
}

// A Neighbour is one entry of the device's neighbour table.
type Neighbour struct {
	IP  netip.Addr
	MAC MAC
}

// Len is the number of changes.
func (c Changes) Len() int {
	return len(c.SetForward) + len(c.SetNeighbour) + len(c.DropForward) + len(c.DropNeighbour)
}

// Diff returns what turns have into want, in a fixed order.
func Diff(want, have Tables) Changes {
	var c Changes
	for f := range want.Forwards {
		if !have.Forwards[f] {
			c.SetForward = append(c.SetForward, f)
		}
	}
	for f := range have.Forwards {
		if !want.Forwards[f] {
			c.DropForward = append(c.DropForward, f)
		}
	}
	for ip, mac := range want.Neighbours {
		if m, ok := have.Neighbours[ip]; !ok || m != mac {
			c.SetNeighbour = append(c.SetNeighbour, Neighbour{ip, mac})
		}
	}
	for ip, mac := range have.Neighbours {
		if _, ok := want.Neighbours[ip]; !ok {
			c.DropNeighbour = append(c.DropNeighbour, Neighbour{ip, mac})
		}
	}
	byIP := func(a, b Neighbour) int { return a.IP.Compare(b.IP) }
	slices.SortFunc(c.SetForward, Forward.Compare)
	slices.SortFunc(c.DropForward, Forward.Compare)
	slices.SortFunc(c.SetNeighbour, byIP)
	slices.SortFunc(c.DropNeighbour, byIP)
	return c
}
