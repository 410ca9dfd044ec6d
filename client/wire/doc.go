// Package wire is the codec of meshkv's native protocol, which client.Dial and
// the server in node/api speak.
//
// A client opens a TCP connection to the API port and upgrades it:
//
//	GET /v1/native HTTP/1.1
//	Connection: Upgrade
//	Upgrade: meshkv/1
//
// After the 101 answer both sides send frames: a length (4 bytes, big endian)
// and so many bytes of one msgpack array. A request is [id, type, timeout, …],
// a reply [id, type, …] with the id of its request; ids are chosen by the client
// and not reused while in use. Requests run concurrently and are answered in any
// order, each once, except a watch: it is answered by Opened, then any number of
// Events, and ends with an Error or when the client cancels its id.
//
// A watch has credit in bytes. Events use it up by their frames' lengths; at
// zero or below the server sends no more until the client grants some. One slow
// watch thus never holds up the others on its connection.
//
// Arrays may be longer than known here: what is too much is skipped, so that
// fields can be added at the end. Decoding allocates nothing that the received
// bytes do not pay for, and every error of it wraps ErrFrame.
package wire

// MaxInflightHeader in the answer to the upgrade is how many requests, without
// watches, may be in flight; further ones are refused as overloaded.
const MaxInflightHeader = "Meshkv-Max-Inflight"

// Protocol is the name in the Upgrade header, Path the place of the upgrade.
const (
	Protocol = "meshkv/1"
	Path     = "/v1/native"
)

// Bounds of the frames, without their length. A reply may carry two values of
// the largest size, for an event has the former one as well, or what one
// transaction may read, 4 MiB.
const (
	MaxRequest = 2 << 20
	MaxReply   = 5 << 20
)
