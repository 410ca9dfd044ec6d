// Package replica runs one strong keyspace at one member of its Raft group.
//
// A Replica is a machine.Machine behind a group.Group. It adds what the two leave open:
//
//   - Commands of many callers travel as one entry of the log (batcher).
//   - Every member takes every call. One that does not lead sends commands, already
//     encoded, to the one that does, and asks it for the index that a linearizable read must
//     wait for; what it reads is its own (Ongaro 2014, §6.4).
//   - An attempt whose outcome is not known is made again under the same request, which the
//     machine applies once. A call ends with an unknown outcome only if its time does.
//   - Watches follow the history of the machine, so that they lose nothing and need no
//     queues; whoever waits for a lock waits for its effect here.
//   - The leader's duties: expiry of sessions, ends of lock delays, compaction.
//
// Other members are reached through a Caller; Serve answers theirs.
package replica
