// Package consensus holds what strong keyspaces are made of: Raft groups and the
// state machine that they replicate. A strong keyspace is one group with one
// machine.Machine; losing its quorum never touches an eventual keyspace.
package consensus
