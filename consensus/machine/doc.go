// Package machine is the state machine of one strong keyspace: what a Raft group
// replicates, without Raft. It is pure. It has no clock, no randomness and no
// goroutine, so replicas that apply the same log hold the same state, which
// View.Digest shows.
//
// The promises:
//
//   - A keyspace has one revision: 1 when it is empty, 2 after the first write. All
//     changes of one command share a revision. Reads, failed commands and deletes of
//     nothing do not advance it.
//   - A command takes effect wholly or not at all, and Apply never panics, whatever
//     the bytes: an error is a result like any other, equal on every replica.
//   - A fencing token is above every token given before in this keyspace, by whichever
//     leader and across snapshots. A Txn can demand that a lock is held under one.
//   - A lock wakes its waiters in the order in which they came. What a lease owns, keys,
//     locks, places in queues and blocks of a pool, ends with it in one command.
//   - A command that carries a Request takes effect once; see that type for the rule.
//   - History since the compacted revision is complete: a read or a watch gets all of it
//     or ErrCompacted.
//
// A replica that answers ErrUnknownVersion or ErrUnknownCommand is older than its
// leader, which has applied the command: whoever runs it must stop it there.
//
// Compaction, expiry and the end of a lock delay are commands too. When to give them
// is decided by the leader, who has a clock: Result and View tell it what it needs.
// One Compact costs what it drops, so a leader compacts a long history in steps.
//
// The shape of store, transaction and lease is etcd's; fencing tokens are those of
// Burrows 2006, "The Chubby lock service for loosely-coupled distributed systems", §2.4;
// requests that apply once follow Ongaro 2014, "Consensus: Bridging Theory and Practice",
// §6.3, without its registration of clients.
package machine
