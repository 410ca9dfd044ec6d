package mesh

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
)

// The opening of a stream of ours, the same in both directions:
//
//	[0xD6 'm' 'k' 'v'] [kind u8] [len u16] [body]
//	hello:  [version u16] [inc u64] [cluster] [name] [addr]   strings: [len u16] [bytes]
//	refuse: [code u8] [name] [text]
//
// Who dials says hello for a link, or with the same body api or server for a connection of [Mesh.DialAPI] or
// [Mesh.DialServer]. All are answered by hello or refuse.
//
// Bytes after the known ones are skipped, so that fields can be added. memberlist's streams
// and packets begin with 0..13 or 244, a TLS record with 22.
const (
	magicByte    = 0xD6
	magic        = "\xD6mkv"
	helloVersion = 1
	maxHello     = 2048

	kindHello  = 1
	kindRefuse = 2
	kindAPI    = 3
	kindServer = 4
)

type refusal uint8

const (
	accepted refusal = iota
	refusedVersion
	refusedCluster
	refusedName       // the other is a live node of our own name
	refusedSelf       // the other is this very process
	refusedSuperseded // a newer incarnation of this name has a link
	refusedDuplicate  // the preferred link exists
	refusedClosing
	refusedFuture // the other's incarnation is born too far ahead of our clock
	refusedFull   // as many connections as this node allows
)

func (c refusal) String() string {
	switch c {
	case refusedVersion:
		return "another protocol version"
	case refusedCluster:
		return "another cluster"
	case refusedName:
		return "a live node has this name"
	case refusedSelf:
		return "it is the node itself"
	case refusedSuperseded:
		return "a newer process of this name is connected"
	case refusedDuplicate:
		return "there is a link already"
	case refusedClosing:
		return "shutting down"
	case refusedFuture:
		return "its incarnation is of the future: one of the two clocks is wrong"
	case refusedFull:
		return "it has as many connections as it allows"
	default:
		return fmt.Sprintf("code %d", uint8(c))
	}
}

// refusedError is a refusal by the peer.
type refusedError struct {
	code refusal
	name string // of who refused; may be ""
	text string
}

func (e *refusedError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("%v: %v", ErrRefused, e.code)
	}
	return fmt.Sprintf("%v: %v (%q)", ErrRefused, e.code, e.text)
}

func (e *refusedError) Unwrap() error { return ErrRefused }

// hello is how a process introduces itself.
type hello struct {
	cluster string
	name    string
	inc     uint64
	addr    string // advertised
}

func appendOpening(b []byte, kind byte, body []byte) []byte {
	b = append(b, magic...)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func appendHello(b []byte, h hello) []byte { return appendGreeting(b, kindHello, h) }

// appendGreeting makes a hello or an api.
func appendGreeting(b []byte, kind byte, h hello) []byte {
	body := binary.BigEndian.AppendUint16(nil, helloVersion)
	body = binary.BigEndian.AppendUint64(body, h.inc)
	body = appendString(body, h.cluster)
	body = appendString(body, h.name)
	body = appendString(body, h.addr)
	return appendOpening(b, kind, body)
}

func appendRefusal(b []byte, e refusedError) []byte {
	body := appendString([]byte{byte(e.code)}, e.name)
	return appendOpening(b, kindRefuse, appendString(body, e.text[:min(len(e.text), maxAddr)]))
}

// readHello reads an answer: a hello or a refusal.
func readHello(r io.Reader) (hello, error) {
	kind, h, err := readOpening(r)
	if err == nil && kind != kindHello {
		err = fmt.Errorf("%w: kind %d as an answer", errHello, kind)
	}
	return h, err
}

// readOpening reads an opening, and not a byte more. A refusal is an error.
func readOpening(r io.Reader) (kind byte, h hello, err error) {
	var head [len(magic) + 3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, hello{}, err
	}
	if string(head[:len(magic)]) != magic {
		return 0, hello{}, fmt.Errorf("%w: magic", errHello)
	}
	kind = head[len(magic)]
	n := int(binary.BigEndian.Uint16(head[len(magic)+1:]))
	if n > maxHello {
		return kind, hello{}, fmt.Errorf("%w: %d bytes", errHello, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return kind, hello{}, err
	}
	switch kind {
	case kindHello, kindAPI, kindServer:
		h, err = parseHello(body)
	case kindRefuse:
		err = parseRefusal(body)
	default:
		err = fmt.Errorf("%w: kind %d", errHello, kind)
	}
	return kind, h, err
}

func parseRefusal(b []byte) (err error) {
	if len(b) < 1 {
		return fmt.Errorf("%w: short", errHello)
	}
	e := &refusedError{code: refusal(b[0])}
	if e.name, b, err = cutString(b[1:], maxName); err != nil {
		return err
	}
	if e.text, _, err = cutString(b, maxAddr); err != nil {
		return err
	}
	return e
}

func parseHello(b []byte) (h hello, err error) {
	if len(b) < 10 {
		return h, fmt.Errorf("%w: short", errHello)
	}
	if v := binary.BigEndian.Uint16(b); v != helloVersion {
		return h, &refusedError{code: refusedVersion, text: fmt.Sprintf("it speaks %d, this node %d", v, helloVersion)}
	}
	h.inc = binary.BigEndian.Uint64(b[2:])
	b = b[10:]
	if h.cluster, b, err = cutString(b, maxCluster); err != nil {
		return h, err
	}
	if h.name, b, err = cutString(b, maxName); err != nil {
		return h, err
	}
	if h.addr, _, err = cutString(b, maxAddr); err != nil {
		return h, err
	}
	if h.inc == 0 {
		return h, fmt.Errorf("%w: no incarnation", errHello)
	}
	if _, err := netip.ParseAddrPort(h.addr); err != nil { // it will be dialed, and never resolved
		return h, fmt.Errorf("%w: address", errHello)
	}
	if err := checkName(h.name); err != nil {
		return h, fmt.Errorf("%w: %w", errHello, err)
	}
	return h, nil
}

func cutString(b []byte, limit int) (string, []byte, error) {
	if len(b) < 2 {
		return "", nil, fmt.Errorf("%w: short", errHello)
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > limit || n > len(b)-2 {
		return "", nil, fmt.Errorf("%w: string of %d bytes", errHello, n)
	}
	return string(b[2 : 2+n]), b[2+n:], nil
}
