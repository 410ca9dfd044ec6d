// Package overlay is the control plane of a small VXLAN overlay network, kept
// in meshkv: the example that overlay-lab runs in network namespaces.
//
// Every host leases a /24 from the strong keyspace "ipam", under a fencing token
// and as long as its session lives. It publishes who it is in the keyspace "nodes"
// and which containers it runs in the keyspace "endpoints". Both are owner-bound: a
// host that fails takes its records out of everyone's sight. Records of an address
// that is not the host's by "ipam" have no effect. Every host watches all, decides
// which entries its kernel should hold (Desired), compares (Diff) and
// programs the difference: one forwarding entry (MAC → VTEP) and one neighbour
// entry (IP → MAC) for each remote endpoint. Nothing is learned from packets
// and nothing is flooded. Because a right database does not make a right
// kernel (moby #49908), an Agent also reads the kernel back periodically and
// repairs it.
//
// Decisions are pure (record.go, claim.go, view.go, tables.go); the netlink shell is
// kernel_linux.go.
package overlay
