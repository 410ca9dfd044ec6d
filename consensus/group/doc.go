// Package group runs one Raft group: a replicated log of commands, applied to a
// state machine in one order on all voters. It is hashicorp/raft (Raft, Ongaro
// 2014) with what strong keyspaces ask for beyond it:
//
//   - The three outcomes of a proposal stay apart: applied, not applied
//     (ErrNotApplied) and unknown (ErrUnknownOutcome).
//   - ReadIndex makes reads linearizable without an entry in the log. See its
//     comment for why raft.VerifyLeader is not enough.
//   - What is in flight is bounded in bytes (ErrOverloaded).
//   - A leader that closes hands over its leadership.
//
// A Group does not decide who its voters are: Config.Bootstrap is given once, by
// whoever has a committed decision about it.
package group
