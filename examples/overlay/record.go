package overlay

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
)

// The eventual keyspaces of the overlay.
const (
	NodesKeyspace     = "nodes"
	EndpointsKeyspace = "endpoints"
)

// ErrBadRecord: a stored record is not one that an Agent wrote. Such records
// are ignored and counted.
var ErrBadRecord = errors.New("bad overlay record")

// A MAC is an Ethernet address.
type MAC [6]byte

// String is the usual form, such as 02:42:0a:63:01:02.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText is String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (m *MAC) UnmarshalText(text []byte) error {
	hw, err := net.ParseMAC(string(text))
	if err != nil || len(hw) != len(m) {
		return fmt.Errorf("%w: MAC", ErrBadRecord)
	}
	copy(m[:], hw)
	return nil
}

// DeriveMAC returns the address that belongs to a name for ever, so that a
// reboot does not change it (flannel #533): a hash, marked as locally
// administered and unicast.
func DeriveMAC(name string) MAC {
	sum := sha256.Sum256([]byte(name))
	var m MAC
	copy(m[:], sum[:])
	m[0] = m[0]&^1 | 2
	return m
}

// A Node is one host's record, stored under its name.
type Node struct {
	Name   string       `json:"-"`
	VTEP   netip.Addr   `json:"vtep"` // underlay address of its tunnel end
	MAC    MAC          `json:"mac"`  // of its tunnel end and gateway
	VNI    int          `json:"vni"`
	Subnet netip.Prefix `json:"subnet"` // the /24 that it leases, its containers' home
	Token  uint64       `json:"token"`  // of the lease
}

// Gateway is the host's own address in the overlay: the first of its subnet. It cannot
// move.
func (n Node) Gateway() netip.Addr { return n.Subnet.Masked().Addr().Next() }

// lease is the claim that n says it has.
func (n Node) lease() Claim { return Claim{n.Subnet, n.Name, n.Token} }

// Encode returns the record's key and value.
func (n Node) Encode() (key string, value []byte, err error) {
	value, err = json.Marshal(n)
	return n.Name, value, err
}

// DecodeNode is the inverse of Node.Encode.
func DecodeNode(e client.Entry) (Node, error) {
	var n Node
	if err := json.Unmarshal(e.Value, &n); err != nil {
		return Node{}, fmt.Errorf("%w: node: %w", ErrBadRecord, err)
	}
	n.Name = e.Key
	ok := n.VTEP.Is4() && n.MAC.unicast() && n.VNI > 0 && n.VNI < 1<<24 &&
		n.Subnet.Addr().Is4() && n.Subnet.Bits() <= 30 && n.Subnet == n.Subnet.Masked()
	if !ok {
		return Node{}, fmt.Errorf("%w: node", ErrBadRecord)
	}
	return n, nil
}

// An Endpoint is one container's address at one host. Its key holds the whole
// tuple, so that two records of one IP or MAC coexist and the survivor counts
// when the other goes (calico #9576).
type Endpoint struct {
	IP   netip.Addr `json:"-"`
	MAC  MAC        `json:"-"`
	Node string     `json:"-"` // name of the host that runs it
	// Name is the container's, for people.
	Name string `json:"name"`
	// Token is that of the claim under which the node has the address.
	Token uint64 `json:"token"`
	// Modified is when the record was written; it breaks ties. Not stored in
	// the value.
	Modified time.Time `json:"-"`
}

// Key is IP/MAC/node.
func (p Endpoint) Key() string { return p.IP.String() + "/" + p.MAC.String() + "/" + p.Node }

// Encode returns the record's key and value.
func (p Endpoint) Encode() (key string, value []byte, err error) {
	value, err = json.Marshal(p)
	return p.Key(), value, err
}

// DecodeEndpoint is the inverse of Endpoint.Encode.
func DecodeEndpoint(e client.Entry) (Endpoint, error) {
	var p Endpoint
	if err := json.Unmarshal(e.Value, &p); err != nil {
		return Endpoint{}, fmt.Errorf("%w: endpoint: %w", ErrBadRecord, err)
	}
	part := strings.SplitN(e.Key, "/", 3)
	if len(part) != 3 || part[2] == "" {
		return Endpoint{}, fmt.Errorf("%w: endpoint key", ErrBadRecord)
	}
	ip, err := netip.ParseAddr(part[0])
	if err != nil || !ip.Is4() {
		return Endpoint{}, fmt.Errorf("%w: endpoint address", ErrBadRecord)
	}
	if err := p.MAC.UnmarshalText([]byte(part[1])); err != nil {
		return Endpoint{}, err
	}
	p.IP, p.Node, p.Modified = ip, part[2], e.Modified
	if !p.MAC.unicast() || p.Key() != e.Key {
		return Endpoint{}, fmt.Errorf("%w: endpoint key", ErrBadRecord)
	}
	return p, nil
}

// unicast also excludes the zero address, which VXLAN takes for "flood".
func (m MAC) unicast() bool { return m[0]&1 == 0 && m != MAC{} }
