package overlay

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/meshkv/meshkv/client"
)

// IPAMKeyspace is the strong keyspace that says whose the overlay's addresses are.
const IPAMKeyspace = "ipam"

// blockBits is the size of what a host leases, as a prefix.
const (
	blockBits = 24
	blockSize = 1 << (32 - blockBits)
)

// A Claim is a part of the overlay's addresses that belongs to one host: the /24 that
// it leases, or one address that has moved to it. It is stored under its prefix and
// ends with the host's session.
type Claim struct {
	Prefix netip.Prefix `json:"prefix"`
	Node   string       `json:"node"`
	// Token is above the tokens of all former claims of the same addresses.
	Token uint64 `json:"token"`
}

// Key is the prefix.
func (c Claim) Key() string { return c.Prefix.String() }

// Encode returns the record's key and value.
func (c Claim) Encode() (key string, value []byte, err error) {
	value, err = json.Marshal(c)
	return c.Key(), value, err
}

// DecodeClaim is the inverse of Claim.Encode.
func DecodeClaim(e client.Entry) (Claim, error) {
	var c Claim
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return Claim{}, fmt.Errorf("%w: claim: %w", ErrBadRecord, err)
	}
	p := c.Prefix
	ok := p.Addr().Is4() && p == p.Masked() && (p.Bits() == blockBits || p.Bits() == 32) &&
		c.Key() == e.Key && c.Node != "" && c.Token > 0
	if !ok {
		return Claim{}, fmt.Errorf("%w: claim", ErrBadRecord)
	}
	return c, nil
}

// address is ip as a prefix.
func address(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, 32) }

// block is the /24 that ip is in.
func block(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, blockBits).Masked() }

// Claims are claims by their prefix.
type Claims map[netip.Prefix]Claim

// NewClaims returns records by their prefix, which is unique as their key is.
func NewClaims(records []Claim) Claims {
	m := make(Claims, len(records))
	for _, c := range records {
		m[c.Prefix] = c
	}
	return m
}

// Owner is the claim under which ip belongs to a host: its move, or else the lease of
// its /24. So at every revision of the keyspace an address has one owner at most.
func (m Claims) Owner(ip netip.Addr) (Claim, bool) {
	if c, moved := m[address(ip)]; moved {
		return c, true
	}
	c, leased := m[block(ip)]
	return c, leased
}

// Fences are the highest tokens of claims seen, of each address and each /24. They
// outlive the claims: a store that shows a former state again, or a record that a
// former owner wrote late, is refused by them. There is at most one for each address of
// the pool, and one for each /24.
type Fences map[netip.Prefix]uint64

// Raise notes a claim.
func (f Fences) Raise(c Claim) { f[c.Prefix] = max(f[c.Prefix], c.Token) }

// Refuse reports whether ip may have belonged to somebody else since it belonged to
// its owner under c.
func (f Fences) Refuse(c Claim, ip netip.Addr) bool {
	return c.Token < f[address(ip)] || c.Token < f[c.Prefix]
}
