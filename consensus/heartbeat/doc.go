// Package heartbeat carries the heartbeats of many Raft groups between two nodes as
// one message. A leader sends one to each follower every 50 to 100 ms; with fifty
// groups on three nodes these are more than a thousand exchanges a second, which is
// most of what idle groups cost.
//
// A Coalescer lets heartbeats stand, and sends those for a node in one call every
// 150 ms; the answers come back as its result. A Line is the share that one group has of
// it. Raft has a goroutine and a timer for each group and follower: to wake them costs
// more than the messages, so that Raft is told of few answers only, or by Take, of all
// groups at once. What is not answered this way a group sends itself, so nothing depends
// on it: a replica answers only what needs no disk, and one that cannot answer keeps
// nobody waiting.
//
// A message is, with unsigned varints for numbers and lengths,
//
//	version u8 (1), number of heartbeats, then for each: group, term, leader, address
//
// where leader and address are their length plus one and their bytes, or 0 if they are
// those of the heartbeat before. The answer is
//
//	version u8 (1), then for each heartbeat: u8 0 if there is no answer,
//	else u8 1 if it was refused or 2, term, last index, commit index
package heartbeat
