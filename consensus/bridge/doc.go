// Package bridge maps a strong keyspace to the data model of eventual ones, so that
// any node can hold a copy that spreads by gossip (design §8).
//
// The copy is a replica of an eventual keyspace in which one incarnation writes, the
// origin, that no process has. The n-th change of the machine (machine.Seq) is the op
// with the dot (origin, n). A put brings a cell and removes that of the entry before; a
// delete only removes. So the state of a machine whose last change is n is the replica
//
//	S = the live entries as cells    C = {origin: 1..n}    D = ∅
//
// and whoever applied the ops 1..n, in any order, or was told of that state by a
// session, has the same. Nothing has to be agreed on besides: all voters make the same
// ops of the same log, and a replica ignores what it knows.
//
// An op is named by its dot, so the n-th change of an origin must never be another one
// than it was. A group that may have lost committed changes (a restore, or a recovery
// without a majority) goes on under another origin: its copies begin anew.
//
// A cell has no place for all of an entry. What is left, the revisions of creation and
// of the last put, the version and the lease, is in the cell's Path.
//
// The package is pure.
package bridge
