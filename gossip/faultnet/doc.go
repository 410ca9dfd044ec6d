// Package faultnet is a network with faults for tests and demonstrations: real sockets on the
// machine, mostly on loopback addresses, between nodes that have names, and which can be
// partitioned into groups, cut off in one direction or for one protocol only, slowed down and
// made to lose packets at any time.
//
// A partition looks like a broken cable, not like a closed port: nothing is refused or reset.
// Connections stay open and silent, and what was written travels on after the partition has
// been healed; dials wait; packets are gone. Like a real network it keeps every direction of a
// connection apart, and like a real kernel it buffers only so much (256 KiB) of what cannot
// be delivered.
//
// Who is at the other end is known by addresses: of listeners, and of the local ends of
// connections that were dialed through this network. Addresses of others are never cut off.
package faultnet
