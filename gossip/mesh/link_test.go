package mesh

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// tcpPair is a connection over loopback: a pipe would not buffer.
func tcpPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

var noNews = linkNews{bye: func() {}, want: func(bool) {}, gone: func(removal) {}}

func linkPair(t *testing.T, timing Timings) (*Link, *Link) {
	t.Helper()
	timing.setDefaults()
	a, b := tcpPair(t)
	la, lb := newLink(a, Member{Name: "b"}, timing), newLink(b, Member{Name: "a"}, timing)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { la.keep(ctx, noNews) })
	wg.Go(func() { lb.keep(ctx, noNews) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return la, lb
}

func TestLinkCarriesFrames(t *testing.T) {
	la, lb := linkPair(t, Timings{LinkPing: 2 * time.Millisecond, LinkSilence: patience})
	go func() { // reads until the end, so pings are answered
		for {
			if _, err := la.ReadFrame(nil); err != nil {
				return
			}
		}
	}()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, 8).Draw(t, "frames")
		if rapid.IntRange(0, 20).Draw(t, "large") == 0 {
			want = append(want, bytes.Repeat([]byte{7}, rapid.IntRange(writeChunk-1, MaxFrame).Draw(t, "size")))
		}
		var writer sync.WaitGroup
		defer writer.Wait() // or what was read may not be counted as sent yet
		writer.Go(func() {
			for _, f := range want {
				if la.WriteFrame(f) != nil {
					return
				}
			}
		})
		buf := make([]byte, 0, rapid.IntRange(0, 400).Draw(t, "buffer"))
		for _, f := range want {
			got, err := lb.ReadFrame(buf)
			if err != nil || !bytes.Equal(got, f) {
				t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(f))
			}
			buf = got
		}
	})
	if la.RTT() == 0 && lb.RTT() == 0 {
		t.Error("no round trip was measured")
	}
	if la.SentBytes() == 0 || lb.RecvBytes() > la.SentBytes() {
		t.Errorf("sent %d, received %d", la.SentBytes(), lb.RecvBytes())
	}
}

func rawFrame(kind byte, n uint32, sum uint32, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(kind)<<28|n)
	b = binary.BigEndian.AppendUint32(b, sum)
	return append(b, payload...)
}

func TestLinkRefusesBadFrames(t *testing.T) {
	for name, raw := range map[string][]byte{
		"checksum":      rawFrame(frameData, 3, 5, []byte("abc")),
		"too large":     rawFrame(frameData, MaxFrame+1, 0, nil),
		"largest field": rawFrame(frameData, 1<<28-1, 0, nil),
		"kind":          rawFrame(7, 0, 0, nil),
		"ping size":     rawFrame(framePing, 9, 0, make([]byte, 9)),
		"ping checksum": rawFrame(framePing, 8, 1, make([]byte, 8)),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			var timing Timings
			timing.setDefaults()
			l := newLink(b, Member{}, timing)
			if _, err := a.Write(raw); err != nil {
				t.Fatal(err)
			}
			if _, err := l.ReadFrame(nil); !errors.Is(err, ErrFrame) {
				t.Errorf("got %v", err)
			}
			if l.Err() == nil || l.WriteFrame(nil) == nil {
				t.Error("the link lives on")
			}
		})
	}
}

// Who announces a large frame and sends little makes us allocate little.
func TestLinkAllocatesAsBytesCome(t *testing.T) {
	a, b := tcpPair(t)
	var timing Timings
	timing.setDefaults()
	l := newLink(b, Member{}, timing)
	a.Write(rawFrame(frameData, MaxFrame, 0, make([]byte, 10)))
	a.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := l.ReadFrame(nil)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrLinkClosed) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 4*writeChunk {
		t.Errorf("allocated %d bytes", n)
	}
}

func TestLinkSilence(t *testing.T) {
	_, b := tcpPair(t) // the other end is nobody
	timing := Timings{LinkPing: 10 * time.Millisecond, LinkSilence: 50 * time.Millisecond}
	timing.setDefaults()
	l := newLink(b, Member{}, timing)
	start := time.Now()
	if _, err := l.ReadFrame(nil); !errors.Is(err, ErrLinkClosed) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took < timing.LinkSilence || took > patience {
		t.Errorf("dead after %v", took)
	}
}

// Pings keep an idle link alive for far longer than its silence.
func TestLinkIdle(t *testing.T) {
	t.Parallel()
	la, lb := linkPair(t, Timings{LinkPing: 5 * time.Millisecond, LinkSilence: 2 * time.Second})
	go func() {
		for {
			if _, err := la.ReadFrame(nil); err != nil {
				return
			}
		}
	}()
	got := make(chan error, 1)
	go func() {
		_, err := lb.ReadFrame(nil)
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("idle link ended: %v", err)
	case <-time.After(2500 * time.Millisecond):
	}
	la.Close()
	if err := <-got; !errors.Is(err, ErrLinkClosed) {
		t.Errorf("got %v", err)
	}
}

// Two ends that both write without pause and answer pings must not block each other.
func TestLinkBothWrite(t *testing.T) {
	la, lb := linkPair(t, Timings{LinkPing: time.Millisecond, LinkSilence: patience})
	const frames = 200
	payload := make([]byte, 64<<10)
	var wg sync.WaitGroup
	for _, l := range []*Link{la, lb} {
		wg.Go(func() {
			for range frames {
				if err := l.WriteFrame(payload); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
		wg.Go(func() {
			var buf []byte
			for range frames {
				b, err := l.ReadFrame(buf)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				buf = b
			}
		})
	}
	wg.Wait()
}

func TestLinkWriteStalls(t *testing.T) {
	_, b := tcpPair(t)
	timing := Timings{LinkWrite: 50 * time.Millisecond}
	timing.setDefaults()
	l := newLink(b, Member{}, timing)
	payload := make([]byte, MaxFrame)
	for range 1000 {
		if err := l.WriteFrame(payload); err != nil {
			if !errors.Is(err, ErrLinkClosed) {
				t.Errorf("got %v", err)
			}
			return
		}
	}
	t.Error("a peer that takes nothing was never noticed")
}

func TestHelloRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := hello{
			cluster: rapid.StringN(0, -1, maxCluster).Draw(t, "cluster"),
			name:    rapid.StringMatching(`[a-zA-Z0-9._-]{1,128}`).Draw(t, "name"),
			inc:     rapid.Uint64Min(1).Draw(t, "inc"),
			addr:    rapid.SampledFrom([]string{"127.0.0.1:7950", "[2001:db8::1]:65535"}).Draw(t, "addr"),
		}
		b := appendHello(nil, h)
		r := bytes.NewReader(append(b, "more"...))
		got, err := readHello(r)
		if err != nil || got != h || r.Len() != 4 {
			t.Fatalf("got %+v, %v, %d left; want %+v", got, err, r.Len(), h)
		}
		for n := range b {
			if _, err := readHello(bytes.NewReader(b[:n])); err == nil {
				t.Fatalf("cut at %d of %d is read", n, len(b))
			}
		}
		// A newer version of us may say more.
		longer := appendOpening(nil, kindHello, append(bytes.Clone(b[len(magic)+3:]), "future"...))
		if got, err := readHello(bytes.NewReader(longer)); err != nil || got != h {
			t.Fatalf("longer: %+v, %v", got, err)
		}
	})
}

func TestHelloRefuses(t *testing.T) {
	good := hello{cluster: "c", name: "a", inc: 1, addr: "127.0.0.1:1"}
	edit := func(f func(*hello)) []byte {
		h := good
		f(&h)
		return appendHello(nil, h)
	}
	version := appendHello(nil, good)
	version[len(magic)+4] = 9
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"magic":     {[]byte("\xd6mkw12345"), errHello},
		"kind":      {appendOpening(nil, 9, nil), errHello},
		"long":      {appendOpening(nil, kindHello, make([]byte, maxHello+1)), errHello},
		"version":   {version, ErrRefused},
		"no inc":    {edit(func(h *hello) { h.inc = 0 }), errHello},
		"no name":   {edit(func(h *hello) { h.name = "" }), errHello},
		"name":      {edit(func(h *hello) { h.name = "a\n" }), errHello},
		"long name": {edit(func(h *hello) { h.name = strings.Repeat("a", maxName+1) }), errHello},
		"host name": {edit(func(h *hello) { h.addr = "evil.example:80" }), errHello},
		"refusal":   {appendRefusal(nil, refusedError{code: refusedName, name: "b", text: strings.Repeat("x", 999)}), ErrRefused},
	} {
		if _, err := readHello(bytes.NewReader(c.b)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func FuzzHello(f *testing.F) {
	f.Add(appendHello(nil, hello{name: "a", inc: 1, addr: "127.0.0.1:1"}))
	f.Add(appendRefusal(nil, refusedError{code: refusedName, name: "a", text: "x"}))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(bytes.NewReader(b))
		if err == nil && (h.inc == 0 || checkName(h.name) != nil || len(h.cluster) > maxCluster || len(h.addr) > maxAddr) {
			t.Errorf("accepted %+v", h)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(rawFrame(frameData, 3, crc32.Checksum([]byte("abc"), castagnoli), []byte("abc")))
	f.Add(rawFrame(framePing, 8, 0, make([]byte, 8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, c := net.Pipe()
		var timing Timings
		timing.setDefaults()
		l := newLink(c, Member{}, timing)
		go func() {
			a.Write(b)
			a.Close()
		}()
		for {
			p, err := l.ReadFrame(nil)
			if err != nil {
				break
			}
			if len(p) > MaxFrame {
				t.Errorf("%d bytes", len(p))
			}
		}
		a.Close()
	})
}
