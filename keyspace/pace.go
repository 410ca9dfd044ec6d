package keyspace

import (
	"strings"
	"sync"

	"github.com/meshkv/meshkv/gossip"
)

// pace is what the sessions of all keyspaces of a node share: 2 that peers began
// and 2 of its own at a time, and 8 MiB/s. The zero value is ready. Safe for
// concurrent use.
type pace struct {
	mu    sync.Mutex // protects plain
	plain *gossip.SessionPace
}

var _ gossip.Pace = (*pace)(nil)

func (p *pace) lock() *gossip.SessionPace {
	p.mu.Lock()
	if p.plain == nil {
		p.plain = gossip.NewSessionPace(gossip.Limits{})
	}
	return p.plain
}

// Begin implements gossip.Pace.
func (p *pace) Begin(outbound bool) bool {
	defer p.mu.Unlock()
	return p.lock().Begin(outbound)
}

// End implements gossip.Pace.
func (p *pace) End(outbound bool) {
	defer p.mu.Unlock()
	p.lock().End(outbound)
}

// Ready implements gossip.Pace.
func (p *pace) Ready(nowNs int64) bool {
	defer p.mu.Unlock()
	return p.lock().Ready(nowNs)
}

// Spend implements gossip.Pace.
func (p *pace) Spend(bytes int) {
	defer p.mu.Unlock()
	p.lock().Spend(bytes)
}

// paceOf is the pace of a keyspace. Those of the system are small, and joining
// waits for them: they do not queue behind what users hold.
func (e *Env) paceOf(id string) gossip.Pace {
	if strings.HasPrefix(id, "_") {
		return nil
	}
	return &e.pace
}
