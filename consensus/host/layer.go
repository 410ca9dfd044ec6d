package host

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/meshkv/meshkv/consensus/placement"
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

// sendHeartbeats sends the heartbeats of all groups to the replicas with an id.
func (h *Host) sendHeartbeats(ctx context.Context, id string, body []byte) ([]byte, error) {
	message := append(append(make([]byte, 0, len(id)+1+len(body)), id...), 0)
	return h.client.Call(ctx, placement.NodeOf(id), hostGroup, callHeartbeats, append(message, body...))
}

// answerHeartbeats answers those that are meant for this disk.
func (h *Host) answerHeartbeats(body []byte) ([]byte, error) {
	id, beats, ok := bytes.Cut(body, []byte{0})
	if own := h.identity.server(h.cfg.Zone).Replica().ID; !ok || string(id) != own {
		return nil, fmt.Errorf("%w: heartbeats for %q at %s", ErrInvalid, id, own)
	}
	return h.beats.Serve(beats)
}
