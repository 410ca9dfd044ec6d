package overlay

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Device is a VXLAN device, programmed over netlink.
type Device struct {
	nl   *netlink.Handle
	link netlink.Link
}

// OpenDevice finds the named device; nl stays the caller's.
func OpenDevice(nl *netlink.Handle, name string) (*Device, error) {
	link, err := nl.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", name, err)
	}
	return &Device{nl, link}, nil
}

// Tables reads the forwarding entries and the permanent IPv4 neighbours.
func (d *Device) Tables() (Tables, error) {
	t := NewTables()
	fdb, err := d.nl.NeighList(d.link.Attrs().Index, unix.AF_BRIDGE)
	if err != nil {
		return t, fmt.Errorf("list forwarding entries: %w", err)
	}
	for _, n := range fdb {
		vtep, ok := netip.AddrFromSlice(n.IP)
		// Without NTF_SELF it is the bridge's entry for the port.
		if n.Flags&netlink.NTF_SELF == 0 || !ok || len(n.HardwareAddr) != len(MAC{}) {
			continue
		}
		t.Forwards[Forward{MAC(n.HardwareAddr), vtep.Unmap()}] = true
	}
	neighbours, err := d.nl.NeighList(d.link.Attrs().Index, unix.AF_INET)
	if err != nil {
		return t, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbours {
		ip, ok := netip.AddrFromSlice(n.IP)
		if n.State&netlink.NUD_PERMANENT == 0 || !ok || len(n.HardwareAddr) != len(MAC{}) {
			continue
		}
		t.Neighbours[ip.Unmap()] = MAC(n.HardwareAddr)
	}
	return t, nil
}

// Apply makes the changes in order and goes on after one that fails.
func (d *Device) Apply(c Changes) error {
	var errs []error
	for _, f := range c.SetForward {
		errs = append(errs, d.nl.NeighSet(d.forward(f)))
	}
	for _, n := range c.SetNeighbour {
		errs = append(errs, d.nl.NeighSet(d.neighbour(n)))
	}
	for _, f := range c.DropForward {
		if err := d.nl.NeighDel(d.forward(f)); !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	for _, n := range c.DropNeighbour {
		if err := d.nl.NeighDel(d.neighbour(n)); !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("program %s: %w", d.link.Attrs().Name, err)
	}
	return nil
}

func (d *Device) forward(f Forward) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex:    d.link.Attrs().Index,
		Family:       unix.AF_BRIDGE,
		Flags:        netlink.NTF_SELF,
		State:        netlink.NUD_PERMANENT,
		IP:           f.VTEP.AsSlice(),
		HardwareAddr: f.MAC[:],
	}
}

func (d *Device) neighbour(n Neighbour) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex:    d.link.Attrs().Index,
		Family:       unix.AF_INET,
		State:        netlink.NUD_PERMANENT,
		IP:           n.IP.AsSlice(),
		HardwareAddr: n.MAC[:],
	}
}
