package mesh

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// MaxFrame is the largest payload of one frame: a value of 1 MiB and what is around it.
const MaxFrame = 1<<20 + 64<<10

// A frame is [kind:4 bits | len:28 bits, u32] [crc32c of the payload, u32] [payload].
const (
	frameHead = 8

	frameData = 0
	framePing = 1 // payload: 8 bytes, sent back
	framePong = 2
	frameBye  = 3 // empty: the sender leaves the cluster for good
	frameWant = 4 // payload: 1 if the sender wants this link, else 0; the first frame of each side
	frameGone = 5 // payload: inc u64, name: an operator removed that failed process

	writeChunk = 64 << 10
	maxGone    = 64 // removals that wait on one link, in each direction
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Link is the stream to one process of a peer. One goroutine may read while another
// writes; more than one may write. Somebody must read, or the link's end goes unnoticed.
//
// It ends when either side closes it, at a damaged frame, when nothing at all comes for
// LinkSilence, when the peer takes nothing for LinkWrite, when a better link with the same peer
// replaces it, and with the Mesh.
type Link struct {
	// Peer is who answered: Name, Inc and Addr are set.
	Peer Member

	conn   net.Conn
	br     *bufio.Reader
	head   [frameHead]byte
	timing Timings
	rlimit limit // of reads

	wmu    sync.Mutex // protects wbuf, wlimit and the order on the wire
	wbuf   []byte
	wlimit limit // of writes

	pongs chan [8]byte  // the newest ping to answer
	byes  chan struct{} // of capacity 1: the peer said that it leaves

	wanted     atomic.Bool   // by this side; keep tells the peer
	peerWanted atomic.Bool   // by the peer, as it said last
	tell, told chan struct{} // of capacity 1: either of them changed
	goneOut    chan removal  // to be told to the peer
	goneIn     chan removal  // told by the peer
	goneLost   atomic.Int64  // removals for which there was no room

	sent, received atomic.Int64
	heard          atomic.Int64 // ns since born: the last byte that came
	rtt            atomic.Int64 // ns, smoothed
	born           time.Time    // the zero of the pings' clock

	once  sync.Once
	done  chan struct{}
	cause atomic.Pointer[error] // why it ended; set before done is closed
}

func newLink(conn net.Conn, peer Member, t Timings) *Link {
	l := &Link{
		Peer: peer, conn: conn, timing: t, pongs: make(chan [8]byte, 1), byes: make(chan struct{}, 1),
		tell: make(chan struct{}, 1), told: make(chan struct{}, 1),
		goneOut: make(chan removal, maxGone), goneIn: make(chan removal, maxGone),
		done: make(chan struct{}), born: time.Now(),
	}
	l.wanted.Store(true)
	l.peerWanted.Store(true)
	l.br = bufio.NewReaderSize(readTimer{l}, writeChunk)
	return l
}

// A limit is a deadline that moves on with every call. Moving it costs as much as a
// short system call, so it stays where it is for a tenth of its length.
type limit struct{ set time.Time }

// extend calls move with the deadline after d, if the present one was set longer than
// a tenth of d ago.
func (t *limit) extend(d time.Duration, move func(time.Time) error) error {
	now := time.Now()
	if now.Sub(t.set) < d/10 {
		return nil
	}
	t.set = now
	return move(now.Add(d))
}

// readTimer reads from the connection and fails after LinkSilence without a byte, or a
// tenth of that earlier.
type readTimer struct{ l *Link }

func (r readTimer) Read(b []byte) (int, error) {
	if err := r.l.rlimit.extend(r.l.timing.LinkSilence, r.l.conn.SetReadDeadline); err != nil {
		return 0, err
	}
	n, err := r.l.conn.Read(b)
	if n > 0 {
		r.l.received.Add(int64(n))
		r.l.heard.Store(int64(time.Since(r.l.born)))
	}
	return n, err
}

// ReadFrame returns the next payload, in buf if that is large enough. An error is final: the
// link is closed.
func (l *Link) ReadFrame(buf []byte) ([]byte, error) {
	for {
		kind, payload, err := l.readAny(buf)
		if err != nil {
			return nil, l.fail(err)
		}
		switch kind {
		case frameData:
			return payload, nil
		case framePing:
			var p [8]byte
			copy(p[:], payload)
			select { // an older ping that is still unanswered is given up for this one
			case <-l.pongs:
			default:
			}
			l.pongs <- p // there is room: only this goroutine puts
		case framePong:
			l.measure(payload)
		case frameBye:
			signal(l.byes) // once is enough
		case frameWant:
			l.peerWanted.Store(payload[0] == 1)
			signal(l.told)
		case frameGone:
			select {
			case l.goneIn <- parseRemoval(payload):
			default: // serf tells us, too
				l.goneLost.Add(1)
			}
		}
	}
}

// signal notes in a channel of capacity 1 that there is something to look at.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *Link) readAny(buf []byte) (byte, []byte, error) {
	if _, err := io.ReadFull(l.br, l.head[:]); err != nil {
		return 0, nil, err
	}
	word := binary.BigEndian.Uint32(l.head[:])
	kind, n := byte(word>>28), int(word&(1<<28-1))
	switch {
	case kind == frameData && n <= MaxFrame:
	case (kind == framePing || kind == framePong) && n == 8:
	case kind == frameBye && n == 0:
	case kind == frameWant && n == 1:
	case kind == frameGone && n > 8 && n <= 8+maxName:
	default:
		return 0, nil, fmt.Errorf("%w: kind %d of %d bytes", ErrFrame, kind, n)
	}
	if kind != frameData || cap(buf) < n {
		// Grown as bytes come in steps that a liar pays for: 64 KiB at first.
		buf = make([]byte, 0, min(n, writeChunk))
	}
	buf = buf[:0]
	for len(buf) < n {
		step := min(n-len(buf), max(writeChunk, len(buf)))
		if cap(buf) < len(buf)+step {
			buf = append(make([]byte, 0, min(n, 2*cap(buf)+step)), buf...)
		}
		part := buf[len(buf) : len(buf)+step]
		if _, err := io.ReadFull(l.br, part); err != nil {
			return 0, nil, err
		}
		buf = buf[:len(buf)+step]
	}
	if crc32.Checksum(buf, castagnoli) != binary.BigEndian.Uint32(l.head[4:]) {
		return 0, nil, fmt.Errorf("%w: checksum", ErrFrame)
	}
	return kind, buf, nil
}

// WriteFrame sends one payload, of at most MaxFrame bytes, and does not keep it. An error other
// than ErrFrame is final.
func (l *Link) WriteFrame(payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("%w: %d bytes", ErrFrame, len(payload))
	}
	return l.writeAny(frameData, payload)
}

func (l *Link) writeAny(kind byte, payload []byte) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	b := binary.BigEndian.AppendUint32(l.wbuf[:0], uint32(kind)<<28|uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	first := min(len(payload), writeChunk)
	b = append(b, payload[:first]...)
	l.wbuf = b
	if err := l.writeTimed(b); err != nil {
		return l.fail(err)
	}
	for rest := payload[first:]; len(rest) > 0; {
		n := min(len(rest), writeChunk)
		if err := l.writeTimed(rest[:n]); err != nil {
			return l.fail(err)
		}
		rest = rest[n:]
	}
	return nil
}

func (l *Link) writeTimed(b []byte) error {
	if err := l.wlimit.extend(l.timing.LinkWrite, l.conn.SetWriteDeadline); err != nil {
		return err
	}
	n, err := l.conn.Write(b)
	l.sent.Add(int64(n))
	return err
}

// want notes whether this side wants the link. keep tells the peer.
func (l *Link) want(yes bool) {
	if l.wanted.Swap(yes) != yes {
		signal(l.tell)
	}
}

// spread queues a removal for the peer.
func (l *Link) spread(r removal) {
	select {
	case l.goneOut <- r:
	default: // serf tells it, too
		l.goneLost.Add(1)
	}
}

// linkNews is what the peer said about membership, for its owner. The calls come from keep.
type linkNews struct {
	bye  func()
	want func(yes bool)
	gone func(removal)
}

// keep answers pings and sends them until the link or ctx ends; then the link is closed.
// All that is not data leaves here and not from ReadFrame, where a blocked write would stop the reading,
// on both sides for ever.
func (l *Link) keep(ctx context.Context, news linkNews) {
	stop := context.AfterFunc(ctx, func() { l.close(ErrLinkClosed) }) // a write in progress ends, too
	defer stop()
	ticker := time.NewTicker(l.timing.LinkPing)
	defer ticker.Stop()
	l.tellWanted()
	l.ping()
	sent := l.sent.Load()
	for n := 1; ; {
		select {
		case <-l.done:
			return
		case p := <-l.pongs:
			l.writeAny(framePong, p[:])
		case <-l.byes:
			news.bye()
		case <-l.tell:
			l.tellWanted()
		case <-l.told:
			news.want(l.peerWanted.Load())
		case r := <-l.goneOut:
			l.writeAny(frameGone, appendRemoval(nil, r))
		case r := <-l.goneIn:
			news.gone(r)
		case <-ticker.C:
			// Whatever was sent, an answer to the other's ping included, says that we are alive. Every
			// fourth ping is sent anyway, for the round trip.
			if n++; l.sent.Load() == sent || n%4 == 0 || l.rtt.Load() == 0 {
				l.ping()
			}
			sent = l.sent.Load()
		}
	}
}

func (l *Link) tellWanted() {
	var yes [1]byte
	if l.wanted.Load() {
		yes[0] = 1
	}
	l.writeAny(frameWant, yes[:])
}

func (l *Link) ping() {
	var p [8]byte
	binary.BigEndian.PutUint64(p[:], uint64(time.Since(l.born)))
	l.writeAny(framePing, p[:])
}

func (l *Link) measure(pong []byte) {
	now := int64(time.Since(l.born))
	sample := now - int64(binary.BigEndian.Uint64(pong))
	if sample <= 0 || sample > now {
		return // we sent no such ping
	}
	old := l.rtt.Load()
	if old == 0 {
		old = sample
	}
	l.rtt.Store(old + (sample-old)/4)
}

// fail ends the link for err and returns why it ended, which may be an earlier reason.
func (l *Link) fail(err error) error {
	l.close(err)
	return *l.cause.Load()
}

// end marks the link as ended and performs no I/O: the connection is still to be closed.
func (l *Link) end(cause error) {
	l.once.Do(func() {
		var timeout net.Error
		switch {
		case errors.Is(cause, ErrLinkClosed), errors.Is(cause, ErrFrame):
		case errors.As(cause, &timeout) && timeout.Timeout():
			cause = fmt.Errorf("%w: the peer is silent or takes nothing", ErrLinkClosed)
		default:
			cause = fmt.Errorf("%w: %w", ErrLinkClosed, cause)
		}
		l.cause.Store(&cause)
		close(l.done)
	})
}

func (l *Link) close(cause error) {
	l.end(cause)
	l.conn.Close() // more than once does no harm
}

// Close ends the link. It may be called at any time, and twice.
func (l *Link) Close() error {
	l.close(ErrLinkClosed)
	return nil
}

// Done is closed when the link has ended.
func (l *Link) Done() <-chan struct{} { return l.done }

// Err is why the link ended, nil before.
func (l *Link) Err() error {
	select {
	case <-l.done:
		return *l.cause.Load()
	default:
		return nil
	}
}

// Addr is the remote address of the connection.
func (l *Link) Addr() string { return l.conn.RemoteAddr().String() }

// Heard is when the last byte came from the peer; before the first, when the link was made.
func (l *Link) Heard() time.Time { return l.born.Add(time.Duration(l.heard.Load())) }

// SentBytes counts what was written to the connection.
func (l *Link) SentBytes() int64 { return l.sent.Load() }

// RecvBytes counts what was read from the connection.
func (l *Link) RecvBytes() int64 { return l.received.Load() }

// RTT is the smoothed round-trip time of pings, queueing included; 0 before the first.
func (l *Link) RTT() time.Duration { return time.Duration(l.rtt.Load()) }
