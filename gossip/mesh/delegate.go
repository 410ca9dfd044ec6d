package mesh

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
	"github.com/vmihailenco/msgpack/v5"
)

var errForeign = errors.New("member of another cluster")

// gateDelegate stands before serf's delegate and keeps our own user messages from it. None is
// defined yet. Serf's message types are small numbers.
type gateDelegate struct {
	memberlist.Delegate
	count *counters
	meta  *atomic.Pointer[[]byte] // instead of serf's; nil: serf's
}

// NodeMeta is called under memberlist's locks. Serf's own way to change its tags writes them while others read.
func (g *gateDelegate) NodeMeta(limit int) []byte {
	if b := g.meta.Load(); b != nil && len(*b) <= limit {
		return *b
	}
	return g.Delegate.NodeMeta(limit)
}

// NotifyMsg must not block: memberlist drops suspect and dead notices meanwhile.
func (g *gateDelegate) NotifyMsg(b []byte) {
	if len(b) > 0 && b[0] == magicByte {
		g.count.messagesOurs.Add(1)
		return
	}
	g.Delegate.NotifyMsg(b)
}

// conflict is a name that two addresses claim.
type conflict struct {
	name        string
	known, told claim
}

type claim struct {
	addr string
	inc  uint64
}

// conflictGate takes serf's place, whose resolution lets the majority's memory win over the
// process that is really there.
type conflictGate struct {
	count *counters
	out   chan<- conflict
}

// NotifyConflict is called under memberlist's lock.
func (g *conflictGate) NotifyConflict(existing, other *memberlist.Node) {
	g.count.nameConflicts.Add(1)
	select {
	case g.out <- conflict{name: existing.Name, known: claimOf(existing), told: claimOf(other)}:
	default: // it is repeated at every push/pull
	}
}

func claimOf(n *memberlist.Node) claim {
	c := claim{addr: n.Address()}
	if tags := decodeTags(n.Meta); tags != nil {
		c.inc, _ = strconv.ParseUint(tags[tagInc], 36, 64)
	}
	return c
}

// encodeTags and decodeTags do as serf does: a magic byte, and a map in msgpack.
func encodeTags(tags map[string]string) ([]byte, error) {
	b, err := msgpack.Marshal(tags)
	return append([]byte{255}, b...), err
}

func decodeTags(meta []byte) map[string]string {
	if len(meta) < 2 || len(meta) > memberlist.MetaMaxSize || meta[0] != 255 {
		return nil
	}
	var tags map[string]string
	if msgpack.Unmarshal(meta[1:], &tags) != nil {
		return nil
	}
	return tags
}

// clusterGuard is serf's Merge: it refuses members of another cluster. A stock serf node
// says nothing of a cluster and is let in.
type clusterGuard struct {
	cluster string
	count   *counters
}

func (g *clusterGuard) NotifyMerge(members []*serf.Member) error {
	for _, m := range members {
		if m.Tags[tagInc] != "" && m.Tags[tagCluster] != g.cluster {
			g.count.foreignMembers.Add(1)
			return fmt.Errorf("%w: %s at %s", errForeign, strconv.Quote(m.Name), net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port))))
		}
	}
	return nil
}
