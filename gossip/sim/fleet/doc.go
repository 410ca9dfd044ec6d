// Package fleet runs the Replicators of thousands of nodes in a deterministic
// discrete-event simulation, over the links of package overlay, on the model of
// a local network: one goroutine, one heap of events, one seed, and no clock but
// its own. Equal configurations give equal runs, which the trace hash shows.
//
// Package sim breaks everything that can break, between a handful of nodes. This
// one asks what scale costs: how long an op takes to the last of 10,000 nodes,
// how many bytes and copies that takes, and how long it takes to become equal
// after crashes, partitions and restarts.
//
// What is modelled, and how coarsely, is written in docs/adr/0008: streams that
// delay what they lose, a processor that serves one frame after another, a
// membership of which each node learns with a delay of its own, links that come
// and go as the overlay wants. Rules are those of other systems, as far as they
// decide how updates spread, in the same network: see Epidemic.
package fleet
