package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"
)

// Errors of this package.
var (
	// ErrConfig: the configuration cannot work.
	ErrConfig = errors.New("mesh: bad configuration")
	// ErrAddrInUse: another process has the mesh's address.
	ErrAddrInUse = errors.New("mesh: address in use")
	// ErrNameTaken: a live node of this name was there first; Run returned for that.
	ErrNameTaken = errors.New("mesh: node name taken")
	// ErrNotRunning: Run was not called yet, or has returned.
	ErrNotRunning = errors.New("mesh: not running")
	// ErrLinkClosed: the link was closed by either side, or replaced by a newer one.
	ErrLinkClosed = errors.New("mesh: link closed")
	// ErrFrame: the peer sent a frame that is damaged or too large, or such a frame was given to
	// WriteFrame. The link is closed in the first case.
	ErrFrame = errors.New("mesh: bad frame")
	// ErrRefused: the peer answered our HELLO with a refusal; the text has its reason.
	ErrRefused = errors.New("mesh: link refused")
	// ErrUnknownMember: no member has that name, or it is one to which no connection can be made.
	ErrUnknownMember = errors.New("mesh: unknown member")
	// ErrAlive: the member is alive; only one that failed can be removed.
	ErrAlive = errors.New("mesh: member is alive")

	errHello = errors.New("mesh: bad hello")
)

const (
	maxName    = 128 // bytes of a node's name
	maxCluster = 64
	maxAddr    = 256
	maxSeeds   = 64

	defaultMaxLinks    = 256
	defaultMaxAPIConns = 256
	// maxServerConns bounds the inbound connections of [Mesh.ServerConns]: each group that has a replica
	// here takes a few for each of its other members.
	maxServerConns = 4096
)

// Config says what a node is and where it is. Name and Inc are required.
type Config struct {
	// Name is unique in the cluster: letters, digits, '-', '_' and '.', up to 128.
	Name string
	// Cluster keeps clusters apart: nodes of another one are refused. "" takes part in "".
	Cluster string
	// Bind is the host:port of both UDP and TCP. Default 127.0.0.1:7950. Port 0 takes any.
	Bind string
	// Advertise is the host:port under which others reach this node. Default: Bind; where that is
	// every address (0.0.0.0), the first private one of the machine. Port 0 or none is Bind's.
	Advertise string
	// Join names the seeds, host:port, at most 64. They are tried until they are members, and again
	// whenever they are not. A name is resolved anew at every attempt.
	Join []string
	// Inc is the incarnation of this process start: later starts have greater ones.
	Inc uint64

	Zone    string
	Roles   []string
	APIAddr string

	// MaxLinks bounds the links. One more is refused, unless there is a link that neither side wants,
	// which then goes. Without Want, clusters of more members have no full mesh. Default 256.
	MaxLinks int
	// MaxAPIConns bounds the inbound connections of [Mesh.APIConns] that are open. One more is
	// refused. Default 256.
	MaxAPIConns int

	// ReapAfter forgets members that failed or left this long ago. Default 24 h.
	ReapAfter time.Duration
	// SnapshotPath is serf's file of known members, to which a restarted node turns beside its
	// seeds. A second one, with ".known" at its end, has 64 members and the seeds, which are used
	// where Join is empty. "" keeps none.
	SnapshotPath string
	// Network opens the sockets. Default: the machine's.
	Network Network
	// Logger gets member changes at Info. Default: discard.
	Logger *slog.Logger
	// Timings default to those of a LAN.
	Timings Timings
}

// Timings of failure detection and links; zero fields take the defaults.
//
// A killed node in a cluster of n is probed by somebody within ProbeInterval on average and
// at most (n-1)·ProbeInterval by each; the failed probe takes one more. Suspicion lasts
// SuspicionMult·max(1, log10 n)·ProbeInterval if three others confirm it or nobody can
// (n < 5), and SuspicionMaxMult times that if nobody does. With the defaults: 3 s and 6 s up to
// 10 nodes, 6 s and 12 s at 100 (where confirmations are certain), so that a death shows after 4–5 s in
// small clusters and about 7 s at 100 nodes. A live process must be stalled for more than the
// probe and the suspicion (3.6 s) to be called failed by mistake: a suspect gets the accusation with
// every ping and by gossip, and refutes it.
type Timings struct {
	ProbeInterval    time.Duration // default 600 ms
	ProbeTimeout     time.Duration // of the direct UDP ping, before TCP and indirect ones; default 400 ms
	SuspicionMult    int           // default 5
	SuspicionMaxMult int           // default 2
	GossipInterval   time.Duration // default 200 ms
	PushPullInterval time.Duration // full membership with a random member; default 15 s
	Redial           time.Duration // failed members and seeds, from start to start; default 2 s
	DialTimeout      time.Duration // default 1.5 s
	LinkPing         time.Duration // default 1 s
	LinkSilence      time.Duration // a link that is silent for this long is dead; default 5 s
	LinkSurplus      time.Duration // a link that neither side wants for this long is closed; default 10 s
	NameGrace        time.Duration // a second node of a live name gives up after this; default 10 s

	// LinkWrite ends a link when the peer does not take 64 KiB for this long. A peer stops reading
	// while its disk stalls, and new links to it would fare no better, so the default is far above
	// LinkSilence: 30 s. It need not find dead peers: pings come by the other direction, which a peer
	// that takes nothing still writes to, and their absence ends the link after LinkSilence.
	LinkWrite time.Duration
}

func (t *Timings) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&t.ProbeInterval, 600*time.Millisecond)
	def(&t.ProbeTimeout, min(400*time.Millisecond, t.ProbeInterval*2/3))
	def(&t.GossipInterval, 200*time.Millisecond)
	def(&t.PushPullInterval, 15*time.Second)
	def(&t.Redial, 2*time.Second)
	def(&t.DialTimeout, min(1500*time.Millisecond, t.Redial*3/4))
	def(&t.LinkPing, time.Second)
	def(&t.LinkSilence, 5*time.Second)
	def(&t.LinkSurplus, 10*time.Second)
	def(&t.LinkWrite, 30*time.Second)
	def(&t.NameGrace, 10*time.Second)
	if t.SuspicionMult <= 0 {
		t.SuspicionMult = 5
	}
	if t.SuspicionMaxMult <= 0 {
		t.SuspicionMaxMult = 2
	}
}

// prepare fills in the defaults and checks what can be checked without a socket.
func (c *Config) prepare() error {
	c.Bind = cmp.Or(c.Bind, "127.0.0.1:7950")
	c.Timings.setDefaults()
	if c.ReapAfter <= 0 {
		c.ReapAfter = 24 * time.Hour
	}
	if c.MaxLinks <= 0 {
		c.MaxLinks = defaultMaxLinks
	}
	if c.MaxAPIConns <= 0 {
		c.MaxAPIConns = defaultMaxAPIConns
	}
	if c.Network == nil {
		c.Network = machineNetwork{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if err := checkName(c.Name); err != nil {
		return err
	}
	if c.Inc == 0 {
		return fmt.Errorf("%w: an incarnation is needed", ErrConfig)
	}
	if len(c.Cluster) > maxCluster {
		return fmt.Errorf("%w: the cluster's name is longer than %d bytes", ErrConfig, maxCluster)
	}
	if len(c.Join) > maxSeeds {
		return fmt.Errorf("%w: more than %d seeds", ErrConfig, maxSeeds)
	}
	c.Roles = slices.Clone(c.Roles)
	slices.Sort(c.Roles)
	for _, r := range c.Roles {
		if r == "" || strings.Contains(r, ",") {
			return fmt.Errorf("%w: role %q", ErrConfig, r)
		}
	}
	for _, a := range append([]string{c.Bind}, c.Join...) {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("%w: address %q is not host:port", ErrConfig, a)
		}
	}
	if c.Timings.ProbeTimeout > c.Timings.ProbeInterval || c.Timings.LinkPing >= c.Timings.LinkSilence {
		return fmt.Errorf("%w: ProbeTimeout must not exceed ProbeInterval, LinkPing must be below LinkSilence", ErrConfig)
	}
	return nil
}
