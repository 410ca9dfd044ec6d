// Package peer is the process that hosts nodes of one system under measurement,
// seen from both of its ends: [Serve] in the process, [Process] at the harness.
//
// They speak lines of JSON over stdin and stdout: a [Request] and its [Reply],
// one after another. Times are nanoseconds of the machine's real-time clock,
// which all processes of a run share.
package peer
