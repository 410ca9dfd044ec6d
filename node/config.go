package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/meshkv/meshkv/gossip/mesh"
)

// ErrConfig: the configuration cannot work; the text says what to change.
var ErrConfig = errors.New("configuration")

// Durability says when a write counts as done.
type Durability string

// The levels of durability.
const (
	// DurabilityAsync acknowledges from memory; the disk follows, as a rule
	// within 100 ms. The default.
	DurabilityAsync Durability = "async"
	// DurabilityMemory keeps nothing on disk.
	DurabilityMemory Durability = "memory"
	// DurabilityFsync acknowledges when the write is on this node's disk.
	DurabilityFsync Durability = "fsync"
)

// Config describes a node. The zero value is a node in memory on loopback.
type Config struct {
	// Name of the node, unique in the cluster: [A-Za-z0-9._-], at most 63
	// bytes. Default: the host's name.
	Name string
	// Cluster name; nodes of different clusters refuse each other. Default "meshkv".
	Cluster string
	// DataDir holds the store. Empty: everything is in memory, and gone at exit.
	DataDir string
	// Bind is the mesh address, UDP and TCP. Default 127.0.0.1:7950; port 0
	// takes any free port.
	Bind string
	// Advertise is the mesh address that others use. Default: Bind.
	Advertise string
	// HTTP is the API address. Default 127.0.0.1:7951; "off" serves no API.
	HTTP string
	// Join lists mesh addresses of other nodes. They need not be up: the node
	// serves at once and goes on trying every 2 s or less.
	Join []string
	// Zone is where the node is; shown to others.
	Zone string
	// Roles are labels shown to others.
	Roles []string
	// Keyspaces are the names of those that this node holds; "*" stands for all
	// that exist, and is the default. Others are served by nodes that hold them.
	// What was joined and left since, and what is on disk, counts besides.
	Keyspaces []string
	// Server makes the node hold replicas of strong keyspaces, and take the role "server".
	Server bool
	// BootstrapServers are the names of the servers that begin strong keyspaces in a new
	// cluster: 1, 3 or 5, the same list at each of them. Without it a server joins those
	// that there are.
	BootstrapServers []string
	// LogStore is how a server keeps the logs of its replicas: see logstore.Kind.
	LogStore string
	// ReapAfter is how long a failed node stays a member. Default 24h.
	ReapAfter time.Duration
	// RenewAfter is how long the node writes under one incarnation before it takes
	// a new one; a longer one would keep the horizon below which incarnations are
	// forgotten from rising. Default 7 days.
	RenewAfter time.Duration
	// SealAfter is for how long a node's replica must hold the same of ended
	// incarnations before it says so to the others. Default 1 minute.
	SealAfter time.Duration
	// RetireAfter is the age at which ended incarnations without values are
	// forgotten. A node that was away for longer may have to give up values that it
	// alone held. Default 30 days.
	RetireAfter time.Duration
	// Insecure allows addresses other than loopback. Nothing is encrypted or
	// authenticated there: use it on a network where everybody is trusted.
	Insecure bool
	// Durability of every keyspace. Default async; memory if DataDir is empty.
	Durability Durability
	// Network carries the mesh. Default: the machine's.
	Network mesh.Network
	// Logger receives the node's log. Default: discard.
	Logger *slog.Logger
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// withDefaults fills in what is empty and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("%w: no name given and the host has none: %w", ErrConfig, err)
		}
		c.Name = host
	}
	if !nodeName.MatchString(c.Name) {
		return c, fmt.Errorf("%w: name %q: use 1 to 63 of A-Z a-z 0-9 . _ -, beginning with a letter or digit", ErrConfig, c.Name)
	}
	setDefault(&c.Cluster, "meshkv")
	setDefault(&c.Bind, "127.0.0.1:7950")
	setDefault(&c.HTTP, "127.0.0.1:7951")
	if len(c.Keyspaces) == 0 {
		c.Keyspaces = []string{everyKeyspace}
	}
	for _, name := range c.Keyspaces {
		if name != everyKeyspace && !keyspaceName.MatchString(name) {
			return c, fmt.Errorf("%w: keyspaces: %q is no keyspace name: use 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit, or * for all", ErrConfig, name)
		}
	}
	if len(c.Keyspaces) > maxNamed {
		return c, fmt.Errorf("%w: keyspaces: %d names, at most %d; * stands for all", ErrConfig, len(c.Keyspaces), maxNamed)
	}
	if len(c.BootstrapServers) > 0 && !c.Server {
		return c, fmt.Errorf("%w: bootstrap-servers needs --server", ErrConfig)
	}
	if len(c.BootstrapServers) > 0 && !slices.Contains(c.BootstrapServers, c.Name) {
		return c, fmt.Errorf("%w: bootstrap-servers %s: this node, %s, is not among them", ErrConfig, strings.Join(c.BootstrapServers, ","), c.Name)
	}
	if c.Server && !slices.Contains(c.Roles, serverRole) {
		c.Roles = append(slices.Clone(c.Roles), serverRole)
	}
	if c.ReapAfter == 0 {
		c.ReapAfter = 24 * time.Hour
	}
	if c.ReapAfter < 0 {
		return c, fmt.Errorf("%w: reap-after must be positive, not %s", ErrConfig, c.ReapAfter)
	}
	if c.RenewAfter == 0 {
		c.RenewAfter = 7 * 24 * time.Hour
	}
	if c.SealAfter == 0 {
		c.SealAfter = time.Minute
	}
	if c.RetireAfter == 0 {
		c.RetireAfter = 30 * 24 * time.Hour
	}
	for _, d := range []time.Duration{c.RenewAfter, c.SealAfter, c.RetireAfter} {
		if d < 0 {
			return c, fmt.Errorf("%w: renew-after, seal-after and retire-after must be positive, not %s", ErrConfig, d)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch c.Durability {
	case "":
		c.Durability = DurabilityAsync
		if c.DataDir == "" {
			c.Durability = DurabilityMemory
		}
	case DurabilityMemory:
	case DurabilityAsync, DurabilityFsync:
		if c.DataDir == "" {
			return c, fmt.Errorf("%w: durability %s needs a data directory (--data-dir)", ErrConfig, c.Durability)
		}
	default:
		return c, fmt.Errorf("%w: durability %q: use memory, async or fsync", ErrConfig, c.Durability)
	}
	if err := c.checkAddr("bind", c.Bind); err != nil {
		return c, err
	}
	if c.HTTP != "off" {
		if err := c.checkAddr("http", c.HTTP); err != nil {
			return c, err
		}
	}
	for _, seed := range c.Join {
		if _, _, err := net.SplitHostPort(seed); err != nil {
			return c, fmt.Errorf("%w: join address %q: use HOST:PORT", ErrConfig, seed)
		}
	}
	if c.Advertise != "" {
		if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
			return c, fmt.Errorf("%w: advertise address %q: use HOST:PORT", ErrConfig, c.Advertise)
		}
	}
	return c, nil
}

// checkAddr refuses an address that others can reach while nothing protects it.
func (c Config) checkAddr(what, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%w: %s address %q: use HOST:PORT", ErrConfig, what, addr)
	}
	if c.Insecure || host == "localhost" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%w: %s address %q is not loopback and nothing would protect it: add --insecure if everybody on that network is trusted", ErrConfig, what, addr)
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}
