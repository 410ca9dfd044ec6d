// Package sim runs Replicators of package gossip in a deterministic
// discrete-event simulation: one goroutine, one heap of events, one seed, and no
// clock but its own. Equal configurations give equal runs, event by event, which
// the trace hash shows.
//
// It simulates streams with latency, bandwidth and order, that break and lose
// what is under way, and come back, sometimes with a frame of the broken one;
// partitions; processes that restart from what they had, from an older state or
// from nothing, always with a new incarnation; and clocks that are off.
//
// A ledger records every op that was issued. Once everything has healed, all
// replicas must hold the same, and exactly the puts that no op removed which had
// seen them, less the ops that a crash lost before any other node saw them.
package sim
