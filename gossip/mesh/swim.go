package mesh

import (
	"net"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/meshkv/meshkv/crdt"
)

// swimEpoch is where the seconds of SWIM incarnations are counted from: they fit until 2136.
const swimEpoch = 946_684_800 // 2000-01-01

// memberlist's message of that name.
type aliveMessage struct {
	Incarnation uint32
	Node        string
	Addr        []byte
	Port        uint16
	Meta        []byte
	Vsn         []uint8
}

const aliveMessageType = 4

// swimFloor is a SWIM incarnation below that of all later starts and above those of all former ones, which refute less than
// once a second; 0 if the incarnation is older than the epoch.
func swimFloor(inc uint64) uint32 {
	s := crdt.Inc(inc).BirthMs()/1000 - swimEpoch
	if s <= 0 || s >= 1<<32-1<<20 {
		return 0
	}
	return uint32(s)
}

// advance lets this process's SWIM incarnation begin beyond its former self's. memberlist begins each process at 1, where who still has the
// former one as alive ignores the new one's tags until a push/pull with the new one itself, for minutes
// in a cluster of a hundred. It knows one way to get beyond a number: to refute it.
func (m *Mesh) advance(s *serf.Serf) {
	floor := swimFloor(m.self.inc)
	if floor == 0 {
		return
	}
	n := s.Memberlist().LocalNode()
	b, err := msgpack.Marshal(aliveMessage{
		Incarnation: floor, Node: n.Name, Addr: n.Addr, Port: n.Port, Meta: n.Meta,
		Vsn: []uint8{n.PMin, n.PMax, n.PCur, n.DMin, n.DMax, n.DCur},
	})
	if err != nil {
		m.cfg.Logger.Debug("no claim of the own name", "err", err)
		return
	}
	p := &memberlist.Packet{Buf: append([]byte{aliveMessageType}, b...), From: &net.UDPAddr{IP: n.Addr, Port: int(n.Port)}, Timestamp: time.Now()}
	select {
	case m.transport.packets <- p:
	default: // a flood at the start; then as without
		m.count.packetsDropped.Add(1)
	}
}
