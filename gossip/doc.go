// Package gossip spreads the ops of one keyspace between the nodes that hold it
// and repairs what the spreading missed.
//
// A Replicator is one keyspace at one node: its replica, the links to its peers,
// the queue of each link, the ring of recent ops, and the reconciliation
// sessions. In a full mesh the origin of an op pushes it on every link at once.
// In a sparse overlay (gossip/overlay) each receiver passes it on, along a tree
// that is learned for every origin: a duplicate prunes the link that brought it.
// On all other links the op is announced (IHAVE), and whoever lacks an announced
// dot asks for it (GRAFT), which mends the tree. Nothing relies on that alone:
// links compare summaries of their replicas, and unequal ones are settled by a
// session.
//
// The core is pure: no I/O, no goroutines, no clock and no global randomness.
// Equal inputs and an equal seed give equal outputs, byte for byte, which is
// what the simulator in gossip/sim relies on.
//
// Sources: Leitão et al. 2007, "Epidemic Broadcast Trees" (Plumtree), for the
// trees, IHAVE, GRAFT and PRUNE (docs/adr/0006-how-ops-choose-their-way.md); design §3 to §5 for the rest.
package gossip
