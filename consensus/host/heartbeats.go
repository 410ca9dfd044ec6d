package host

import (
	"bytes"
	"context"
	"fmt"

	"github.com/meshkv/meshkv/consensus/placement"
)

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
