package overlay

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/meshkv/meshkv/client"
)

func TestClaimEncoding(t *testing.T) {
	for _, c := range []Claim{testNode(1).lease(), testMove(1, 1, 2, 9)} {
		key, value, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeClaim(client.Entry{Key: key, Value: value}); err != nil || got != c {
			t.Errorf("DecodeClaim(%s, %s) = %+v, %v, want %+v", key, value, got, err, c)
		}
	}
}

func TestDecodeClaimRefuses(t *testing.T) {
	for name, e := range map[string]struct{ key, value string }{
		"no JSON":        {"10.99.1.0/24", `x`},
		"empty":          {"10.99.1.0/24", `{}`},
		"no prefix":      {"", `{"prefix":"","node":"h1","token":1}`},
		"another key":    {"10.99.2.0/24", `{"prefix":"10.99.1.0/24","node":"h1","token":1}`},
		"neither size":   {"10.99.1.0/25", `{"prefix":"10.99.1.0/25","node":"h1","token":1}`},
		"not masked":     {"10.99.1.7/24", `{"prefix":"10.99.1.7/24","node":"h1","token":1}`},
		"IPv6":           {"fe80::/24", `{"prefix":"fe80::/24","node":"h1","token":1}`},
		"no node":        {"10.99.1.0/24", `{"prefix":"10.99.1.0/24","token":1}`},
		"no token":       {"10.99.1.0/24", `{"prefix":"10.99.1.0/24","node":"h1"}`},
		"negative token": {"10.99.1.0/24", `{"prefix":"10.99.1.0/24","node":"h1","token":-1}`},
	} {
		if c, err := DecodeClaim(client.Entry{Key: e.key, Value: []byte(e.value)}); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%s: DecodeClaim = %+v, %v, want ErrBadRecord", name, c, err)
		}
	}
}

func TestOwner(t *testing.T) {
	lease, move := testNode(1).lease(), testMove(1, 1, 2, 9)
	claims := NewClaims([]Claim{lease, move})
	for ip, want := range map[string]Claim{"10.99.1.1": lease, "10.99.1.2": move, "10.99.2.2": {}} {
		got, ok := claims.Owner(netip.MustParseAddr(ip))
		if got != want || ok != (want != Claim{}) {
			t.Errorf("Owner(%s) = %+v, %v, want %+v", ip, got, ok, want)
		}
	}
}

func TestFences(t *testing.T) {
	lease, move := testNode(5).lease(), testMove(5, 1, 2, 9)
	f := Fences{}
	f.Raise(lease)
	f.Raise(move)
	f.Raise(testMove(5, 1, 3, 8)) // a former state
	other := testEndpoint(5, 2, 5, 5).IP
	for _, c := range []struct {
		claim Claim
		ip    netip.Addr
		want  bool
	}{
		{lease, other, false},
		{lease, move.Prefix.Addr(), true},
		{move, move.Prefix.Addr(), false},
		{testMove(5, 1, 2, 8), move.Prefix.Addr(), true},
		{Claim{lease.Prefix, "h5", 4}, other, true},
		{Claim{lease.Prefix, "h5", 10}, move.Prefix.Addr(), false},
	} {
		if got := f.Refuse(c.claim, c.ip); got != c.want {
			t.Errorf("Refuse(%+v, %v) = %v, want %v", c.claim, c.ip, got, c.want)
		}
	}
}

func TestCheckLeases(t *testing.T) {
	block := func(c Claim) client.Allocation {
		return client.Allocation{First: number(c.Prefix.Addr()), Size: blockSize, Token: client.FencingToken(c.Token), Label: c.Node}
	}
	one, two := testNode(1).lease(), testNode(2).lease()
	wide := block(one)
	wide.Size++
	for _, c := range []struct {
		name   string
		blocks []client.Allocation
		claims []Claim
		ok     bool
	}{
		{"empty", nil, nil, true},
		{"two leases and a move", []client.Allocation{block(one), block(two)}, []Claim{one, two, testMove(1, 1, 2, 9)}, true},
		{"not recorded yet", []client.Allocation{block(one), block(two)}, []Claim{one}, true},
		{"overlap", []client.Allocation{wide, block(two)}, nil, false},
		{"not allocated", []client.Allocation{block(one)}, []Claim{one, two}, false},
		{"another token", []client.Allocation{block(one)}, []Claim{{one.Prefix, "h1", 7}}, false},
		{"another host", []client.Allocation{block(one)}, []Claim{{one.Prefix, "h2", one.Token}}, false},
		{"another block", []client.Allocation{block(one)}, []Claim{{two.Prefix, "h1", one.Token}}, false},
	} {
		if err := CheckLeases(c.blocks, c.claims); (err == nil) != c.ok {
			t.Errorf("%s: CheckLeases = %v", c.name, err)
		}
	}
}
