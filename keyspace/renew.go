package keyspace

import (
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// A Renewal is what became of the cells that this process had bound to itself.
type Renewal struct {
	Put        int // put again under the new incarnation
	Superseded int // somebody else has put their key meanwhile: theirs stays
	Expired    int
}

// Renew makes inc, which must be new, the incarnation that writes here, and puts
// again what this process had bound to the former one. The caller has made it
// known to Owners before, and closes the former one afterwards, unless others
// did: then its cells, hidden or collected, are back under the new one.
//
// Who removed a cell while it was cut off, the member that collects for a closed
// incarnation or a user, cannot be told apart when both facts arrive together: it
// is put again. One that was removed more than a minute before the news of the
// closing stays removed, and so does a key that shows another's cell.
func (k *Keyspace) Renew(now time.Time, inc crdt.Inc) (out Renewal) {
	k.drive(now, func() {
		r := k.rep.Replica()
		closed := r.Clock().Entry(r.Inc()).Closed
		k.rep.Renew(inc)
		k.surveyed = false
		nowMs := now.UnixMilli()
		for _, c := range k.mine.take(closed) {
			switch {
			case c.Expires != 0 && c.Expires <= nowMs:
				out.Expired++
				continue
			case k.superseded(c, nowMs):
				out.Superseded++
				continue
			}
			w := crdt.Write{
				Key: c.Key, Path: c.Path, Kind: c.Kind, Flags: c.Flags, Expires: c.Expires,
				Value: c.Value, HLC: k.env.Clock.Now(now),
			}
			if _, err := k.rep.Put(now, w); err != nil {
				k.env.Logger.Error("cell not put again", "keyspace", k.name, "err", err)
				continue
			}
			out.Put++
		}
	})
	return out
}

// superseded reports whether what c was put as shows another's cell.
func (k *Keyspace) superseded(c *crdt.Cell, nowMs int64) bool {
	writing := k.rep.Replica().Inc() // what was put again already
	for _, other := range k.index.ByPath(c.Key, c.Path) {
		if other.Dot.Inc != c.Dot.Inc && other.Dot.Inc != writing && k.visible(other, nowMs) && other.Compare(c) > 0 {
			return true
		}
	}
	return false
}

// renewed is the incarnation that writes, once it is not the first one.
type renewed struct{ inc atomic.Uint64 }

// SetInc makes inc the incarnation of keyspaces that are opened from now on. Those
// that are open are told by Renew.
func (e *Env) SetInc(inc crdt.Inc) { e.renewed.inc.Store(uint64(inc)) }

// Writing is the incarnation that writes now.
func (e *Env) Writing() crdt.Inc {
	if inc := e.renewed.inc.Load(); inc != 0 {
		return crdt.Inc(inc)
	}
	return e.Inc
}
