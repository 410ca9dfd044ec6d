package keyspace

import (
	"time"

	"github.com/meshkv/meshkv/gossip"
)

// OpenFuse lets sessions drop any number of cells for the time given: the
// operator's word that what a peer says is true.
func (k *Keyspace) OpenFuse(now time.Time, d time.Duration) {
	k.drive(now, func() { k.rep.OpenFuse(now, d) })
}

// SetNear tells whether peer, to which there is a link, is in the zone of this
// node: an empty replica is filled from there, if it can be.
func (k *Keyspace) SetNear(peer gossip.PeerID, near bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rep.SetNear(peer, near)
}

// Bootstrap is how far this replica, which was empty, has been filled.
func (k *Keyspace) Bootstrap() gossip.Bootstrap {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rep.Bootstrap()
}
