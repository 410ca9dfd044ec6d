package host

import (
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/meshkv/meshkv/consensus/streams"
)

// layerName is the name of the streams to one member of a group. A replica hears nothing
// that is meant for another disk of its server: it would vote a second time for the one that was lost.
func layerName(group, id string) string { return group + "@" + id }

// A memberLayer is the streams of a member, which dial others by their ids.
type memberLayer struct {
	*streams.Layer
	group string
}

// Dial implements raft.StreamLayer.
func (l memberLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.DialLayer(layerName(l.group, string(addr)), string(addr), timeout)
}
