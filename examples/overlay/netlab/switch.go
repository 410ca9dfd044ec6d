//go:build linux

package netlab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const switchBridge = "underlay"

// A Switch is one Ethernet segment: a bridge in a namespace of its own.
type Switch struct{ Namespace }

// Create makes the namespace and the bridge.
func (s Switch) Create() error {
	if err := s.Namespace.Create(); err != nil {
		return err
	}
	nl, err := s.Handle()
	if err != nil {
		return err
	}
	defer nl.Close()
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: switchBridge}}
	if err := nl.LinkAdd(br); err != nil {
		return fmt.Errorf("create bridge in %s: %w", s.Name, err)
	}
	return nl.LinkSetUp(br)
}

// A Port describes one plug of a namespace in a bridge.
type Port struct {
	Name    string           // of the link on the bridge's side, ≤ 15 bytes
	Inside  Namespace        // the plugged namespace
	Link    string           // name of the link there
	Addr    netip.Prefix     // its address
	MAC     net.HardwareAddr // nil: random
	MTU     int              // 0: the kernel's default
	Gateway netip.Addr       // default route; zero: none
}

// Plug connects p to the switch.
func (s Switch) Plug(p Port) error { return Plug(s.Namespace, switchBridge, p) }

// Plug makes a veth pair from the named bridge in the namespace at to p.Inside
// and brings it up. Neither end is ever in the caller's namespace.
func Plug(at Namespace, bridge string, p Port) error {
	if err := plug(at, bridge, p); err != nil {
		return fmt.Errorf("connect %s to %s: %w", p.Inside.Name, at.Name, err)
	}
	return nil
}

func plug(at Namespace, bridge string, p Port) error {
	outer, err := at.Handle()
	if err != nil {
		return err
	}
	defer outer.Close()
	inner, err := p.Inside.Handle()
	if err != nil {
		return err
	}
	defer inner.Close()
	target, err := netns.GetFromName(p.Inside.Name)
	if err != nil {
		return err
	}
	defer target.Close()

	br, err := outer.LinkByName(bridge)
	if err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: p.Name, MTU: p.MTU, MasterIndex: br.Attrs().Index},
		PeerName:         p.Link,
		PeerHardwareAddr: p.MAC,
		PeerNamespace:    netlink.NsFd(target),
	}
	if err := outer.LinkAdd(veth); err != nil {
		return err
	}
	link, err := inner.LinkByName(p.Link)
	if err != nil {
		return err
	}
	if p.MTU != 0 {
		if err := inner.LinkSetMTU(link, p.MTU); err != nil {
			return err
		}
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr.Addr().AsSlice(), Mask: net.CIDRMask(p.Addr.Bits(), 32)}}
	if err := inner.AddrAdd(link, addr); err != nil {
		return err
	}
	if err := inner.LinkSetUp(link); err != nil {
		return err
	}
	if err := outer.LinkSetUp(veth); err != nil {
		return err
	}
	if p.Gateway.IsValid() {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: p.Gateway.AsSlice()}
		return inner.RouteAdd(route)
	}
	return nil
}

// Unplug removes the named link, and its peer with it, from the namespace at.
// It is no error if there is none.
func Unplug(at Namespace, link string) error {
	nl, err := at.Handle()
	if err != nil {
		return err
	}
	defer nl.Close()
	l, err := nl.LinkByName(link)
	if _, gone := err.(netlink.LinkNotFoundError); gone {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link %s in %s: %w", link, at.Name, err)
	}
	if err := nl.LinkDel(l); err != nil {
		return fmt.Errorf("remove link %s in %s: %w", link, at.Name, err)
	}
	return nil
}
