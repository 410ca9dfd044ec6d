// Package gossip spreads the ops of one keyspace between the nodes that hold it
// and repairs what the spreading missed.
//
// A Replicator is one keyspace at one node: its replica, the links to its peers,
// the queue of each link, the ring of recent ops, and the reconciliation
// sessions. The origin of an op pushes it on every link at once; a receiver does
// not forward it but announces it (IHAVE) on its other links, and whoever lacks
// an announced dot asks for it (GRAFT). Nothing relies on that alone: links
// compare summaries of their replicas, and unequal ones are settled by a session.
//
// The core is pure: no I/O, no goroutines, no clock and no global randomness.
// Equal inputs and an equal seed give equal outputs, byte for byte, which is
// what the simulator in gossip/sim relies on.
//
// Sources: Leitão et al. 2007, "Epidemic Broadcast Trees" (Plumtree), for the
// eager push, IHAVE and GRAFT; design §3 to §5 for the rest.
package gossip
