// Package raftnet is Raft's transport for all groups of a node: what a node says to another
// goes by one connection, however many groups they share.
//
// A Net has the connections, a Member is the raft.Transport of one replica. Messages are
// calls (see package calls) to the name of the group and the address of the replica that is
// meant: a replica hears nothing that is meant for another disk of its node, with which it
// would vote a second time for the one that was lost. Snapshots go by a stream of their own
// (see package streams), so that they delay nothing else.
//
// raft.NetworkTransport has up to three connections for each group and peer, and a system
// call for each message; docs/adr/0017 has the figures.
package raftnet
