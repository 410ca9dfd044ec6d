// Package model tries the rules of package crdt on random schedules. All of it
// is test code.
//
// A schedule is a seed. It drives up to five replicas through puts, deletes,
// collections, lost, doubled, reordered and coalesced ops, sessions that
// overlap, stop half way and meet ops, restarts from older, foreign and empty
// directories, departures and returns, and closed incarnations. Beside each
// crdt.Replica runs a reference: the same rules written again, with plain maps
// that are copied and scanned whole. After every step both must agree, and at
// intervals the promises are checked against a log of all ops ever issued:
//
//   - D and S ∩ C are what the ops in C say, and nothing else; so equal C
//     implies equal D and equal S ∩ C;
//   - a dot in C and not in S never comes back;
//   - after quiescence S is every put minus everything removed, exactly, minus
//     what a crash lost before anybody saw it, and all views agree;
//   - no dot is issued twice.
//
// What was tried and failed is kept as mutants, which must be found: those of
// the rules as source patches in mutants/, those of their use as switches of
// the schedules.
//
//	go test ./crdt/model -schedules 100000 -timeout 2h    # a campaign
//	go test ./crdt/model -run Schedules -schedules 1 -seed N   # one schedule again
//	go test ./crdt/model -run Mutants -mutants -1 -v   # what finds each mutant
package model
