// Package overlay says which members of a keyspace are neighbours: those that
// keep a link and push each other's ops over it.
//
// Up to 17 members everybody is everybody's neighbour. Beyond, the members form
// 4 rings, each in the order of another keyed hash of their names, and the
// neighbours of a member are those before and after it on each ring: at most 8,
// the same from both sides, and each ring alone connects everybody. Two of the
// rings put the members of one zone next to each other, so that about half of
// the links stay within a zone and an op reaches all of it when it reaches one.
//
// The rings depend on nothing but names and zones. Nodes that see the same
// members compute the same rings, those of different keyspaces lead over the
// same links where they have the same members, and a member that joins or goes
// changes the neighbours of 8 others at most.
//
// Source: design §4; Law and Siu 2003, "Distributed Construction of Random
// Expander Networks", for unions of random rings.
package overlay
