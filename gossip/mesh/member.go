package mesh

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Status is what this node believes of a member.
type Status uint8

const (
	// StatusUnknown is the zero value and is never shown.
	StatusUnknown Status = iota
	// StatusAlive: SWIM says alive.
	StatusAlive
	// StatusSuspect: SWIM says alive, but this node's link to it is broken and could not be
	// made again for a second; or SWIM says failed, but it speaks to us over its link.
	StatusSuspect
	// StatusFailed: SWIM found it unreachable. It may come back.
	StatusFailed
	// StatusLeft: it left on purpose.
	StatusLeft
	// StatusReaped: it failed or left, stayed away for ReapAfter and is forgotten. Only
	// events show it.
	StatusReaped
)

// String gives the status as the CLI and API show it.
func (s Status) String() string {
	switch s {
	case StatusAlive:
		return "alive"
	case StatusSuspect:
		return "suspect"
	case StatusFailed:
		return "failed"
	case StatusLeft:
		return "left"
	case StatusReaped:
		return "reaped"
	default:
		return "unknown"
	}
}

// A Member is one node as this node sees it.
type Member struct {
	Name    string
	Addr    string // host:port of its mesh
	APIAddr string // host:port of its API; "" if it has none or did not say
	Status  Status
	Zone    string
	Roles   []string      // sorted
	Inc     uint64        // 0: a stock serf node
	RTT     time.Duration // of the link; 0 if there is none yet
}

func (m Member) equal(o Member) bool {
	return m.Name == o.Name && m.Addr == o.Addr && m.APIAddr == o.APIAddr && m.Status == o.Status &&
		m.Zone == o.Zone && m.Inc == o.Inc && slices.Equal(m.Roles, o.Roles)
}

// A MemberEvent is the newest state of a member that changed.
//
// Inc grows when the member started again. It may also go back: a second node that took a live
// one's name is shown while it has a link, and gives up (ErrNameTaken).
type MemberEvent struct {
	Member Member
}

// The serf tags of a node.
const (
	tagInc     = "inc" // base 36
	tagZone    = "zone"
	tagRoles   = "roles" // joined by commas
	tagAPI     = "api"
	tagCluster = "cluster"
)

func tagsOf(m Member, cluster string) map[string]string {
	tags := map[string]string{tagInc: strconv.FormatUint(m.Inc, 36)}
	set := func(k, v string) {
		if v != "" {
			tags[k] = v
		}
	}
	set(tagZone, m.Zone)
	set(tagRoles, strings.Join(m.Roles, ","))
	set(tagAPI, m.APIAddr)
	set(tagCluster, cluster)
	return tags
}

// memberOf reads what the tags say; a tag that cannot be read counts as absent.
func memberOf(name, addr string, tags map[string]string, status Status) Member {
	m := Member{Name: name, Addr: addr, Status: status, Zone: tags[tagZone], APIAddr: tags[tagAPI]}
	if inc, err := strconv.ParseUint(tags[tagInc], 36, 64); err == nil {
		m.Inc = inc
	}
	if r := tags[tagRoles]; r != "" {
		m.Roles = strings.Split(r, ",")
	}
	return m
}

// absurd says whether the tags have an incarnation that cannot be one. A stock serf node has none.
func absurd(now time.Time, tags map[string]string) bool {
	text, ok := tags[tagInc]
	if !ok {
		return false
	}
	inc, err := strconv.ParseUint(text, 36, 64)
	return err != nil || inc == 0 || future(now, inc)
}

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w: a name has 1 to %d characters", ErrConfig, maxName)
	}
	for _, c := range name {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
		if !ok {
			return fmt.Errorf("%w: name %q: letters, digits, '-', '_' and '.' only", ErrConfig, name)
		}
	}
	return nil
}
