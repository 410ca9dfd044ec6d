// Package placement decides where the replicas of strong keyspaces live, and what to
// change next when servers die, come back, lose their disks or are to be emptied. It is
// pure: no I/O, no goroutine, no clock; time and what is known of servers are arguments.
//
// The catalog of the system group holds a Server per node with that role and a Keyspace
// per strong keyspace. Choose picks servers by rendezvous hashing (Thaler, Ravishankar
// 1998) spread over zones. Policy.Next looks at one keyspace and says one Action: every
// change of a group's voters is written into the catalog as a Change before its first
// step, so that a new leader of the system group goes on with it.
//
// Bootstrap decides when the system group itself may begin: after a durable promise by
// every listed server, and never twice.
package placement
