//go:build linux

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/meshkv/meshkv/examples/overlay"
	"github.com/meshkv/meshkv/examples/overlay/netlab"
	"golang.org/x/sys/unix"
)

// The lab's fixed shape.
const (
	VNI         = 42
	MeshPort    = 7950
	APIPort     = 7951 // on the host's loopback
	ControlPort = 7952 // on the host's loopback
	MTU         = 1500 // of the underlay
	OverlayMTU  = MTU - 50

	LeaseTTL = 20 * time.Second // for how long a host that is gone keeps its /24

	MaxHosts      = 64
	MaxContainers = 64 // of one host, at home

	bridgeLink = "br0"
	vxlanLink  = "vxlan0"
)

// Errors of the lab.
var (
	// ErrNoLab: there is no lab in the directory.
	ErrNoLab = errors.New("no lab is up")
	// ErrExists: there is one already.
	ErrExists = errors.New("a lab is up already")
	// ErrDiffers: a check found what must not be.
	ErrDiffers = errors.New("check failed")
)

// State is the content of the lab's state file.
type State struct {
	Prefix     string      `json:"prefix"` // of every namespace's name
	Hosts      []Host      `json:"hosts"`
	Containers []Container `json:"containers"`
	Groups     [][]string  `json:"groups,omitempty"` // the present partition
}

// A Host is one namespace on the underlay, with one agent.
type Host struct {
	Name    string         `json:"name"`
	VTEP    netip.Addr     `json:"vtep"`
	Subnet  netip.Prefix   `json:"subnet"` // leased by its agent; invalid before
	Token   uint64         `json:"token"`  // of the first lease
	Agent   netlab.Process `json:"agent"`
	Removed bool           `json:"removed,omitempty"` // its namespace was killed too
}

// A Container is one namespace behind a host's bridge.
type Container struct {
	Name  string      `json:"name"`
	Host  string      `json:"host"`
	IP    netip.Addr  `json:"ip"` // invalid before its first host has a lease
	MAC   overlay.MAC `json:"mac"`
	Token uint64      `json:"token"` // of its last move; 0: it has not moved
}

// Pool is all addresses of the overlay.
var Pool = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, 0, 0}), 16)

// Plan returns the state of a new lab: hosts h1, h2… at 10.250.0.i, containers c1-1,
// c1-2…, the first number being that of their first host. Their addresses follow from
// the leases.
func Plan(prefix string, hosts, containers int) (*State, error) {
	if hosts < 1 || hosts > MaxHosts || containers < 0 || containers > MaxContainers {
		return nil, fmt.Errorf("lab: between 1 and %d hosts with at most %d containers each", MaxHosts, MaxContainers)
	}
	if prefix == "" || len(prefix) > 32 || strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, errors.New("lab: a prefix is 1 to 32 of a-z, 0-9 and -")
	}
	s := &State{Prefix: prefix}
	for i := 1; i <= hosts; i++ {
		h := Host{
			Name: fmt.Sprintf("h%d", i),
			VTEP: netip.AddrFrom4([4]byte{10, 250, 0, byte(i)}),
		}
		s.Hosts = append(s.Hosts, h)
		for j := 1; j <= containers; j++ {
			name := fmt.Sprintf("c%d-%d", i, j)
			s.Containers = append(s.Containers, Container{
				Name: name,
				Host: h.Name,
				MAC:  overlay.DeriveMAC("container/" + name),
			})
		}
	}
	return s, nil
}

// settleIn notes the lease of a host and numbers its containers: the gateway has the
// first address, they have the next.
func (s *State) settleIn(h *Host, lease overlay.Claim) {
	h.Subnet, h.Token = lease.Prefix, lease.Token
	ip := h.Node().Gateway()
	for i := range s.Containers {
		if c := &s.Containers[i]; c.Host == h.Name {
			ip = ip.Next()
			c.IP = ip
		}
	}
}

// Servers are the names of the hosts whose nodes hold strong keyspaces: three, or one
// in a lab of fewer hosts.
func (s *State) Servers() []string {
	n := 3
	if len(s.Hosts) < n {
		n = 1
	}
	var names []string
	for _, h := range s.Hosts[:n] {
		names = append(names, h.Name)
	}
	return names
}

// Switch is the underlay.
func (s *State) Switch() netlab.Switch { return netlab.Switch{Namespace: s.namespace("switch")} }

func (s *State) namespace(name string) netlab.Namespace {
	return netlab.Namespace{Name: s.Prefix + "-" + name}
}

// Namespaces lists every namespace of the lab.
func (s *State) Namespaces() []netlab.Namespace {
	all := []netlab.Namespace{s.Switch().Namespace}
	for _, h := range s.Hosts {
		all = append(all, s.namespace(h.Name))
	}
	for _, c := range s.Containers {
		all = append(all, s.namespace(c.Name))
	}
	return all
}

// Host finds a host by its name.
func (s *State) Host(name string) (*Host, error) {
	for i := range s.Hosts {
		if s.Hosts[i].Name == name {
			return &s.Hosts[i], nil
		}
	}
	return nil, fmt.Errorf("lab: no host %q", name)
}

// Container finds a container by its name.
func (s *State) Container(name string) (*Container, error) {
	for i := range s.Containers {
		if s.Containers[i].Name == name {
			return &s.Containers[i], nil
		}
	}
	return nil, fmt.Errorf("lab: no container %q", name)
}

// Live lists the hosts whose agent runs.
func (s *State) Live() []Host {
	var live []Host
	for _, h := range s.Hosts {
		if h.Agent.Alive() {
			live = append(live, h)
		}
	}
	return live
}

// Node is h's record in the store.
func (h Host) Node() overlay.Node {
	return overlay.Node{Name: h.Name, VTEP: h.VTEP, MAC: overlay.DeriveMAC(h.Name), VNI: VNI, Subnet: h.Subnet, Token: h.Token}
}

// Endpoint is c's record in the store, but for its token.
func (c Container) Endpoint() overlay.Endpoint {
	return overlay.Endpoint{IP: c.IP, MAC: c.MAC, Node: c.Host, Name: c.Name}
}

// A Dir is the directory that holds a lab's state, logs and data.
type Dir string

func (d Dir) stateFile() string { return filepath.Join(string(d), "state.json") }
func (d Dir) lockFile() string  { return filepath.Join(string(d), "lock") }

// HostDir is where a host keeps its log and its node's data.
func (d Dir) HostDir(host string) string { return filepath.Join(string(d), host) }

// Lock keeps other programs from changing the lab until unlock.
func (d Dir) Lock() (unlock func(), err error) {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.lockFile(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lab %s: another command is at work: %w", d, err)
	}
	return func() { f.Close() }, nil
}

// Load reads the state file; ErrNoLab if there is none.
func (d Dir) Load() (*State, error) {
	b, err := os.ReadFile(d.stateFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNoLab, d)
	}
	if err != nil {
		return nil, err
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("lab state %s: %w", d.stateFile(), err)
	}
	return &s, nil
}

// Save replaces the state file.
func (d Dir) Save(s *State) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	next := d.stateFile() + ".new"
	if err := os.WriteFile(next, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(next, d.stateFile())
}
