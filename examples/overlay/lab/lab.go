//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
	"github.com/vishvananda/netlink"
)

// Probe reports why a lab cannot run here (netlab.ErrUnsupported).
func Probe() error {
	return netlab.Probe(func() error {
		if err := netlink.LinkAdd(vxlan("probe-vxlan", Host{VTEP: netip.AddrFrom4([4]byte{10, 250, 0, 1})})); err != nil {
			return fmt.Errorf("VXLAN: %w", err)
		}
		return nil
	})
}

// UpOptions describe a new lab.
type UpOptions struct {
	Prefix     string // of namespaces' names
	Hosts      int
	Containers int // of each host
	// Agent is the command that runs RunAgent(dir, host), without those two
	// arguments.
	Agent []string
}

// Up makes a lab and starts its agents. A lab that could not be made whole is
// taken down again.
func (d Dir) Up(ctx context.Context, o UpOptions) (*State, error) {
	if err := Probe(); err != nil {
		return nil, err
	}
	s, err := Plan(o.Prefix, o.Hosts, o.Containers)
	if err != nil {
		return nil, err
	}
	if _, err := d.Load(); !errors.Is(err, ErrNoLab) {
		if err == nil {
			err = fmt.Errorf("%w in %s: take it down first", ErrExists, d)
		}
		return nil, err
	}
	if old, err := netlab.Namespaces(s.Prefix + "-"); err != nil || len(old) > 0 {
		return nil, errors.Join(err, fmt.Errorf("%w: there are namespaces named %s-…: take that lab down, or choose another prefix", ErrExists, s.Prefix))
	}
	if err := d.Save(s); err != nil {
		return nil, err
	}
	if err := d.build(ctx, s, o.Agent); err != nil {
		// Not the caller's context: it may be the reason.
		return nil, errors.Join(err, d.Down(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (d Dir) build(ctx context.Context, s *State, agent []string) error {
	if err := s.Switch().Create(); err != nil {
		return err
	}
	for _, h := range s.Hosts {
		if err := s.buildHost(h); err != nil {
			return err
		}
	}
	for _, c := range s.Containers {
		if err := s.namespace(c.Name).Create(); err != nil {
			return err
		}
	}
	for i := range s.Hosts {
		if err := d.startAgent(s, &s.Hosts[i], agent); err != nil {
			return err
		}
	}
	for i := range s.Hosts {
		h := &s.Hosts[i]
		lease, err := s.open(*h).awaitLease(ctx, leasePatience)
		if err != nil {
			return err
		}
		s.settleIn(h, lease)
	}
	if err := d.Save(s); err != nil {
		return err
	}
	for _, h := range s.Hosts {
		if err := s.addGateway(h); err != nil {
			return err
		}
	}
	for _, c := range s.Containers {
		if err := s.plug(c); err != nil {
			return err
		}
		h, err := s.Host(c.Host)
		if err != nil {
			return err
		}
		if err := s.open(*h).attach(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// leasePatience bounds how long Up waits for the lease of a host: the servers find each
// other and elect a leader first.
const leasePatience = 30 * time.Second

// buildHost makes a host: its underlay link, its bridge, and its end of the tunnel as
// a port of the bridge.
func (s *State) buildHost(h Host) error {
	ns := s.namespace(h.Name)
	if err := ns.Create(); err != nil {
		return err
	}
	uplink := netlab.Port{Name: h.Name, Inside: ns, Link: "eth0", Addr: netip.PrefixFrom(h.VTEP, 24), MTU: MTU}
	if err := s.Switch().Plug(uplink); err != nil {
		return err
	}
	nl, err := ns.Handle()
	if err != nil {
		return err
	}
	defer nl.Close()

	mac := h.Node().MAC
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeLink, MTU: OverlayMTU, HardwareAddr: mac[:]}}
	if err := nl.LinkAdd(br); err != nil {
		return fmt.Errorf("bridge of %s: %w", h.Name, err)
	}
	vx := vxlan(vxlanLink, h)
	vx.MasterIndex = br.Attrs().Index
	if err := nl.LinkAdd(vx); err != nil {
		return fmt.Errorf("VXLAN of %s: %w", h.Name, err)
	}
	// nolearning alone does not help: the bridge would learn the container's
	// address behind this port, and not find it when it moves here.
	if err := nl.LinkSetLearning(vx, false); err != nil {
		return fmt.Errorf("port learning of %s: %w", h.Name, err)
	}
	return errors.Join(nl.LinkSetUp(vx), nl.LinkSetUp(br))
}

// addGateway gives the bridge of a host the first address of its lease.
func (s *State) addGateway(h Host) error {
	nl, err := s.namespace(h.Name).Handle()
	if err != nil {
		return err
	}
	defer nl.Close()
	br, err := nl.LinkByName(bridgeLink)
	if err != nil {
		return fmt.Errorf("bridge of %s: %w", h.Name, err)
	}
	gateway := &netlink.Addr{IPNet: &net.IPNet{IP: h.Node().Gateway().AsSlice(), Mask: net.CIDRMask(Pool.Bits(), 32)}}
	if err := nl.AddrAdd(br, gateway); err != nil {
		return fmt.Errorf("gateway of %s: %w", h.Name, err)
	}
	return nil
}

func vxlan(name string, h Host) *netlink.Vxlan {
	mac := h.Node().MAC
	return &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: name, MTU: OverlayMTU, HardwareAddr: mac[:]},
		VxlanId:   VNI,
		SrcAddr:   h.VTEP.AsSlice(),
		Port:      4789,
		Learning:  false,
		Proxy:     true,
	}
}

// plug connects a container to the bridge of its host.
func (s *State) plug(c Container) error {
	h, err := s.Host(c.Host)
	if err != nil {
		return err
	}
	return netlab.Plug(s.namespace(c.Host), bridgeLink, netlab.Port{
		Name:    c.Name,
		Inside:  s.namespace(c.Name),
		Link:    "eth0",
		Addr:    netip.PrefixFrom(c.IP, Pool.Bits()),
		MAC:     c.MAC[:],
		MTU:     OverlayMTU,
		Gateway: h.Node().Gateway(),
	})
}

func (d Dir) startAgent(s *State, h *Host, agent []string) error {
	if err := os.MkdirAll(d.HostDir(h.Name), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(d.HostDir(h.Name), "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(append([]string{}, agent[1:]...), string(d), h.Name)
	cmd := exec.Command(agent[0], args...)
	cmd.Stdout, cmd.Stderr = log, log
	err = s.namespace(h.Name).Start(cmd, func(p netlab.Process) error {
		h.Agent = p
		return d.Save(s)
	})
	if err != nil {
		return fmt.Errorf("agent of %s: %w", h.Name, err)
	}
	return nil
}

// Down ends the agents that this lab started and removes everything that it
// made. It goes on after errors, and may be called again.
func (d Dir) Down(ctx context.Context) error {
	s, err := d.Load()
	if errors.Is(err, ErrNoLab) {
		return os.RemoveAll(d.stateFile() + ".new")
	}
	if err != nil {
		return err
	}
	errs := make([]error, len(s.Hosts))
	var wg sync.WaitGroup
	for i, h := range s.Hosts {
		wg.Go(func() { errs[i] = h.Agent.End(ctx, 3*time.Second) })
	}
	wg.Wait()
	for _, ns := range s.Namespaces() {
		errs = append(errs, ns.Delete())
	}
	if err := errors.Join(errs...); err != nil {
		return err // the state file stays, for another attempt
	}
	for _, h := range s.Hosts {
		errs = append(errs, os.RemoveAll(d.HostDir(h.Name)))
	}
	errs = append(errs, os.RemoveAll(d.stateFile()+".new"), os.RemoveAll(d.stateFile()))
	return errors.Join(errs...)
}

// Clean removes the directory if it holds nothing but the lock.
func (d Dir) Clean() {
	if _, err := os.Stat(d.stateFile()); errors.Is(err, os.ErrNotExist) {
		os.Remove(d.lockFile())
		os.Remove(string(d))
	}
}
