package overlay

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

func TestDeriveMAC(t *testing.T) {
	a, again, b := DeriveMAC("h1"), DeriveMAC("h1"), DeriveMAC("h2")
	if a != again {
		t.Errorf("the address of h1 changed: %v, then %v", a, again)
	}
	if a == b {
		t.Errorf("h1 and h2 have one address %v", a)
	}
	for _, m := range []MAC{a, b} {
		if m[0]&1 != 0 || m[0]&2 == 0 {
			t.Errorf("%v is not unicast and locally administered", m)
		}
	}
	// Fixed for ever: a host that runs a new version keeps its address.
	if got, want := a.String(), "32:11:2e:e1:4e:e4"; got != want {
		t.Errorf("DeriveMAC(h1) = %s, want %s", got, want)
	}
}

func TestNodeEncoding(t *testing.T) {
	n := Node{Name: "h1", VTEP: netip.MustParseAddr("10.250.0.1"), MAC: DeriveMAC("h1"), VNI: 42, Subnet: netip.MustParsePrefix("10.99.1.0/24")}
	key, value, err := n.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeNode(client.Entry{Key: key, Value: value})
	if err != nil || got != n {
		t.Errorf("DecodeNode(%s) = %+v, %v, want %+v", value, got, err, n)
	}
	if got, want := n.Gateway(), netip.MustParseAddr("10.99.1.1"); got != want {
		t.Errorf("Gateway() = %v, want %v", got, want)
	}
}

func TestDecodeNodeRefuses(t *testing.T) {
	for name, value := range map[string]string{
		"empty":             ``,
		"no JSON":           `x`,
		"nothing":           `{}`,
		"IPv6 VTEP":         `{"vtep":"fe80::1","mac":"02:00:00:00:00:01","vni":42,"subnet":"10.99.1.0/24"}`,
		"multicast MAC":     `{"vtep":"10.0.0.1","mac":"01:00:00:00:00:01","vni":42,"subnet":"10.99.1.0/24"}`,
		"zero MAC":          `{"vtep":"10.0.0.1","mac":"00:00:00:00:00:00","vni":42,"subnet":"10.99.1.0/24"}`,
		"long MAC":          `{"vtep":"10.0.0.1","mac":"02:00:00:00:00:01:02:03","vni":42,"subnet":"10.99.1.0/24"}`,
		"no VNI":            `{"vtep":"10.0.0.1","mac":"02:00:00:00:00:01","subnet":"10.99.1.0/24"}`,
		"subnet too small":  `{"vtep":"10.0.0.1","mac":"02:00:00:00:00:01","vni":42,"subnet":"10.99.1.0/31"}`,
		"subnet not masked": `{"vtep":"10.0.0.1","mac":"02:00:00:00:00:01","vni":42,"subnet":"10.99.1.7/24"}`,
	} {
		if n, err := DecodeNode(client.Entry{Key: "h1", Value: []byte(value)}); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%s: DecodeNode = %+v, %v, want ErrBadRecord", name, n, err)
		}
	}
}

func TestEndpointEncoding(t *testing.T) {
	p := Endpoint{IP: netip.MustParseAddr("10.99.1.2"), MAC: DeriveMAC("c"), Node: "h/1", Name: "c1-1", Token: 3, Modified: time.Unix(9, 0)}
	key, value, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeEndpoint(client.Entry{Key: key, Value: value, Modified: p.Modified})
	if err != nil || got != p {
		t.Errorf("DecodeEndpoint(%s, %s) = %+v, %v, want %+v", key, value, got, err, p)
	}
}

func TestDecodeEndpointRefuses(t *testing.T) {
	for name, e := range map[string]struct{ key, value string }{
		"no JSON":           {"10.99.1.2/02:00:00:00:00:01/h1", `x`},
		"short key":         {"10.99.1.2/02:00:00:00:00:01", `{}`},
		"no node":           {"10.99.1.2/02:00:00:00:00:01/", `{}`},
		"no address":        {"x/02:00:00:00:00:01/h1", `{}`},
		"IPv6":              {"fe80::1/02:00:00:00:00:01/h1", `{}`},
		"flood MAC":         {"10.99.1.2/00:00:00:00:00:00/h1", `{}`},
		"multicast MAC":     {"10.99.1.2/01:00:00:00:00:01/h1", `{}`},
		"other form of MAC": {"10.99.1.2/0200.0000.0001/h1", `{}`},
		"negative token":    {"10.99.1.2/02:00:00:00:00:01/h1", `{"token":-1}`},
	} {
		if p, err := DecodeEndpoint(client.Entry{Key: e.key, Value: []byte(e.value)}); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%s: DecodeEndpoint = %+v, %v, want ErrBadRecord", name, p, err)
		}
	}
}
