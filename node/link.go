package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/gossip/mesh"
	"github.com/meshkv/meshkv/keyspace"
)

// maxFrame is how much one keyspace may put into one frame, in bytes; a single
// larger op travels alone.
const maxFrame = 64 << 10

// errFrame: a frame that is not one of ours; the link is closed.
var errFrame = errors.New("malformed_frame")

// A peer is one established link with its two goroutines. A frame on the wire
// is the length of the keyspace's id in one byte, the id, and the payload; where
// that length is 0, it is a control frame (see interest.go).
type peer struct {
	id     gossip.PeerID
	link   *mesh.Link
	wake   chan struct{} // capacity 1
	due    atomic.Bool   // the peer is to be told what this node holds
	theirs atomic.Pointer[interest]

	up map[string]linkUp // keyspaces that run over the link; protected by Node.linkMu

	mu    sync.Mutex // protects dirty
	dirty map[string]struct{}
	spare map[string]struct{}
}

func newPeer(id gossip.PeerID, link *mesh.Link) *peer {
	return &peer{
		id:    id,
		link:  link,
		wake:  make(chan struct{}, 1),
		up:    make(map[string]linkUp),
		dirty: make(map[string]struct{}),
		spare: make(map[string]struct{}),
	}
}

// mark notes that the keyspace has something to send and wakes the writer.
func (p *peer) mark(keyspace string) {
	p.mu.Lock()
	p.dirty[keyspace] = struct{}{}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// announce has the peer told what this node holds, before any frame of a
// keyspace that is marked afterwards.
func (p *peer) announce() {
	p.due.Store(true)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take are the keyspaces marked since the last call. The map is valid until the
// next call.
func (p *peer) take() map[string]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty, p.spare = p.spare, p.dirty
	clear(p.dirty)
	return p.spare
}

// marked is a copy of the keyspaces that are marked: mark is called with the mutex of
// one held, so that nobody may call them under p.mu.
func (p *peer) marked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.dirty))
}

// takeInto adds the keyspaces marked since the last call of take or takeInto.
func (p *peer) takeInto(dirty map[string]struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(dirty, p.dirty)
	clear(p.dirty)
}

// serve moves frames until the link breaks, a peer misbehaves, or ctx ends. It
// leaves no goroutine behind and closes the link.
func (n *Node) serve(ctx context.Context, p *peer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(n.send(ctx, p)) })
	wg.Go(func() { cancel(n.receive(ctx, p)) })
	<-ctx.Done()
	p.link.Close() // ends both
	wg.Wait()
	return context.Cause(ctx)
}

// send writes what the keyspaces have for the peer: a frame of each in turn, so
// that none waits for more than one frame of every other. Between two rounds a busy
// node waits, see pacer, but not where a session is under way.
func (n *Node) send(ctx context.Context, p *peer) error {
	buf := make([]byte, 0, maxFrame+4096)
	slot := time.NewTimer(0)
	defer slot.Stop()
	for {
		select {
		case <-p.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		if wait := n.pacer.wait(time.Now(), n.peers.Size()); wait > 0 && !n.hurries(p) {
			slot.Reset(wait)
			select {
			case <-slot.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for dirty := p.take(); len(dirty) > 0 || p.due.Load(); {
			if err := n.sendInterest(p); err != nil {
				return err
			}
			for name := range dirty {
				if err := n.sendInterest(p); err != nil {
					return err
				}
				ks := n.find(name)
				if ks == nil {
					delete(dirty, name)
					continue
				}
				buf = append(buf[:0], byte(len(name)))
				buf = append(buf, name...)
				frame, ok := ks.NextFrame(time.Now(), p.id, buf, maxFrame)
				if !ok {
					delete(dirty, name)
					continue
				}
				buf = frame
				if err := p.link.WriteFrame(frame); err != nil {
					return fmt.Errorf("write frame: %w", err)
				}
				n.pacer.sent(time.Now(), len(frame))
			}
			p.takeInto(dirty) // or a busy keyspace would keep out those marked since
		}
	}
}

// hurries reports whether p is not to wait for a slot: where a session with the peer
// is under way in a keyspace that is marked, and where nothing is, since the last
// round took it. A session sends so much and then waits for the answer, so that a
// bootstrap would take a slot for each time. There are few at a time.
func (n *Node) hurries(p *peer) bool {
	marked := p.marked()
	return len(marked) == 0 && !p.due.Load() || slices.ContainsFunc(marked, func(name string) bool {
		ks := n.find(name)
		return ks != nil && ks.Reconciling(p.id)
	})
}

// sendInterest tells the peer what this node holds, if that is due.
func (n *Node) sendInterest(p *peer) error {
	if !p.due.Swap(false) {
		return nil
	}
	if err := p.link.WriteFrame(appendInterest(nil, n.interest())); err != nil {
		return fmt.Errorf("write interest: %w", err)
	}
	return nil
}

// splitFrame is the keyspace's name and the payload.
func splitFrame(frame []byte) (name string, payload []byte, err error) {
	if len(frame) == 0 || len(frame) < 1+int(frame[0]) {
		return "", nil, fmt.Errorf("%w: %d bytes without a keyspace", errFrame, len(frame))
	}
	end := 1 + int(frame[0])
	return string(frame[1:end]), frame[end:], nil
}

// receive hands frames to their keyspaces. While too much waits for the disk it
// reads nothing, so that the peer is held back by the stream itself.
func (n *Node) receive(ctx context.Context, p *peer) error {
	var buf []byte
	for {
		frame, err := p.link.ReadFrame(buf)
		if err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		buf = frame[:0]
		name, payload, err := splitFrame(frame)
		if err != nil {
			n.drops.add("malformed_frame")
			return err
		}
		if name == "" {
			if err := n.control(p, payload); err != nil {
				n.drops.add("malformed_frame")
				return err
			}
			continue
		}
		ks := n.find(name)
		if ks == nil { // it was left, or removed, while the frame was on its way
			n.drops.add("keyspace_not_held")
			continue
		}
		if err := ks.Step(time.Now(), p.id, payload); err != nil {
			n.drops.add("malformed_frame")
			return fmt.Errorf("keyspace %s: %w", name, err)
		}
		if err := ks.Throttle(ctx); err != nil {
			return err
		}
	}
}

// links runs every link that the mesh establishes.
func (n *Node) links(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case link, ok := <-n.mesh.Links():
			if !ok {
				return
			}
			wg.Go(func() { n.runLink(ctx, link) })
		}
	}
}

func (n *Node) runLink(ctx context.Context, link *mesh.Link) {
	member := link.Peer
	p := newPeer(gossip.PeerID(fmt.Sprintf("%s/%016x", member.Name, member.Inc)), link)
	log := n.log.With("peer", member.Name)

	// A second link to the same peer takes the place of the first, whose
	// goroutines end before the keyspaces hear of the new one.
	n.linkMu.Lock()
	if link.Err() != nil { // a newer one has replaced it already
		n.linkMu.Unlock()
		return
	}
	if old, ok := n.peers.Load(p.id); ok {
		old.link.Close()
		ended := n.ended[p.id]
		n.linkMu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			link.Close()
			return
		}
		n.linkMu.Lock()
		if _, ok := n.peers.Load(p.id); ok { // a third one was faster
			n.linkMu.Unlock()
			link.Close()
			return
		}
	}
	ended := make(chan struct{})
	n.ended[p.id] = ended
	n.peers.Store(p.id, p)
	n.everLinked.Store(true)
	p.due.Store(true)
	for _, h := range n.allHeld() {
		n.connect(time.Now(), p, h) // those of the system: of others the peer will tell
	}
	p.announce()
	n.linkMu.Unlock()
	n.overlay.kick()
	log.Info("link up", "addr", link.Addr())

	err := n.serve(ctx, p)

	n.linkMu.Lock()
	n.peers.Delete(p.id)
	delete(n.ended, p.id)
	for _, up := range p.up {
		up.h.ks.LinkDown(time.Now(), p.id)
	}
	clear(p.up)
	close(ended)
	n.linkMu.Unlock()
	n.overlay.kick()
	if ctx.Err() == nil {
		log.Log(ctx, slog.LevelInfo, "link down", "err", err)
	}
}

// allPeers are the established links, by peer.
func (n *Node) allPeers() []*peer {
	all := make([]*peer, 0, n.peers.Size())
	n.peers.Range(func(_ gossip.PeerID, p *peer) bool {
		all = append(all, p)
		return true
	})
	slices.SortFunc(all, func(a, b *peer) int { return cmp.Compare(a.id, b.id) })
	return all
}

// Wake implements keyspace.Waker.
func (n *Node) Wake(name string, id gossip.PeerID) {
	if p, ok := n.peers.Load(id); ok {
		p.mark(name)
	}
}

var _ keyspace.Waker = (*Node)(nil)
