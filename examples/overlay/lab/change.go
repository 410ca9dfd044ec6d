//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/url"

	"github.com/meshkv/meshkv/examples/overlay"
	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

// Move moves a container to another host, with its addresses: the new host claims the
// address, which makes it unreachable at the old one, the link is made anew, the new
// host announces it and the old one withdraws its record.
func (d Dir) Move(ctx context.Context, s *State, container, to string) error {
	c, err := s.Container(container)
	if err != nil {
		return err
	}
	target, err := s.Host(to)
	if err != nil {
		return err
	}
	source, err := s.Host(c.Host)
	if err != nil {
		return err
	}
	switch {
	case source.Name == target.Name:
		return fmt.Errorf("lab: %s is on %s already", container, to)
	case !target.Agent.Alive():
		return fmt.Errorf("lab: the agent of %s is dead", to)
	}
	var claim overlay.Claim
	if err := s.open(*target).call(ctx, "POST", ControlPort, "/claims", c.IP, &claim); err != nil {
		return err
	}
	former := *c
	c.Host, c.Token = to, claim.Token
	// Recorded first: a crash from here on is mended by another Move or Down.
	if err := d.Save(s); err != nil {
		return err
	}
	if !source.Removed {
		if err := netlab.Unplug(s.namespace(source.Name), c.Name); err != nil {
			return err
		}
	}
	if err := netlab.Unplug(s.namespace(c.Name), "eth0"); err != nil {
		return err
	}
	if err := s.plug(*c); err != nil {
		return err
	}
	if err := s.open(*target).attach(ctx, *c); err != nil {
		return err
	}
	if source.Agent.Alive() {
		key := url.QueryEscape(former.Endpoint().Key())
		return s.open(*source).call(ctx, "DELETE", ControlPort, "/endpoints?key="+key, nil, nil)
	}
	return nil // the dead host's record is hidden, and refused
}

// Kill ends a host without warning: SIGKILL for its agent and, if all is set,
// its namespace goes with it, and so do its containers' links.
func (d Dir) Kill(ctx context.Context, s *State, name string, all bool) error {
	h, err := s.Host(name)
	if err != nil {
		return err
	}
	if err := h.Agent.Kill(ctx); err != nil {
		return err
	}
	if !all || h.Removed {
		return nil
	}
	h.Removed = true
	if err := d.Save(s); err != nil {
		return err
	}
	return s.namespace(name).Delete()
}

// Partition lets hosts talk to those of their own group only. A host in no
// group reaches everyone.
func (d Dir) Partition(s *State, groups [][]string) error {
	for _, g := range groups {
		for _, name := range g {
			if _, err := s.Host(name); err != nil {
				return err
			}
		}
	}
	s.Groups = groups
	if err := d.Save(s); err != nil {
		return err
	}
	return s.Switch().Partition(groups...)
}

// Heal ends the partition and returns what it dropped.
func (d Dir) Heal(s *State) (netlab.Dropped, error) {
	dropped, _, err := s.Switch().Dropped()
	if err != nil {
		return dropped, err
	}
	if err := s.Switch().Heal(); err != nil {
		return dropped, err
	}
	s.Groups = nil
	return dropped, d.Save(s)
}
