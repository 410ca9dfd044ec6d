// Package keeper is the leader's clock of the sessions of a strong keyspace: it hears
// their keep-alives, which are in no log, and says which leases are to be ended, and
// which delays of locks. A Keeper begins when its node begins to lead, after the entries
// of all leaders before are applied, and is dropped when it no longer leads.
//
// The promise is to the holder of a session. It counts the TTL from when it sent what was
// acknowledged last, a keep-alive or the grant, and until that is over the lease does not
// expire, whatever becomes of leaders and messages:
//
//   - A leader gives what it heard at r the time until r + TTL, and r is after it was sent.
//   - A leader that takes over at n gives all leases n + TTL. A keep-alive heard at r by
//     the one before is acknowledged only if that one was confirmed to lead after r. So
//     r <= n, and n + TTL is late enough. Without the confirmation, one that was deposed
//     unknowingly could acknowledge what its successor never learns.
//
// That alone would let a session that is dead live for ever where leaders change more
// often than its TTL (etcd issue 9888). So the leader puts a Checkpoint into the log when
// a session was silent for half its TTL: what is left of it, from then on. The next
// leader, at n, gives it n + Left.
//
//   - The checkpoint was proposed at t <= n with Left = r + TTL - t, so n + Left >= r + TTL.
//   - If the session is heard again it must not be acknowledged while a checkpoint may
//     stand, for the next leader would obey that one. So the leader clears it, by a
//     Checkpoint with Left = 0, and acknowledges after that is applied.
//
// A lease is followed by its id; whoever chooses ids must not choose one again.
//
// A session that is silent for ever ends after at most 2 TTL + 3c + 2g, where every leader
// lasts for at least TTL/2 + c, no two have more than g between them, and a proposal is
// applied c after it is due, at the most. The worst case: its leader is deposed TTL/2 + c
// after it heard it, just before the checkpoint is applied; g later the next one begins
// with the whole TTL, lays down a checkpoint, and is deposed just before its Expire is
// applied, TTL + c later; g later the third one begins with TTL/2, and ends it c after
// that.
package keeper
