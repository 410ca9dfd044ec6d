// Package calls carries requests between the server nodes of a cluster: proposals that
// are forwarded to a leader, questions for an index to read at, waits. All calls to a
// node share one connection, which stays open; what is sent together is written
// together.
//
// A caller learns whether its call may have been carried out: it got an answer or a
// Refusal, or ErrNotSent, or ErrLost, which is the only one that leaves the outcome
// open.
//
// A connection begins with a greeting of both sides, the client's first:
//
//	version u8 (1), length of the cluster's id u8, id
//
// Two ids that differ end it: clusters never mix. An empty id fits all. Then frames
// follow, integers big-endian:
//
//	length of the rest u32, type u8, call u64, and by type
//	void
//	request   timeout u64 (µs, 0: none), kind u8, length of the group u8, group, body
//	cancel
//	answer    body
//	refusal   code u8, detail
//	failure   text
//	overload
//	ping, pong (call 0)
//
// A client numbers its calls upwards from 1. Void is a request that was withdrawn before
// it was written. Failure is an error of the handler that is no Refusal.
//
// An end that waits for the other, which a client does for answers and a server for those
// who wait for its calls, and reads nothing for 2 s, pings. Another 2 s later it gives
// the connection up.
package calls
