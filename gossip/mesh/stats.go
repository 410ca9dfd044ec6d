package mesh

import "sync/atomic"

// Stats counts since New.
type Stats struct {
	Alive, Suspect, Failed, Left int // members now, this node among the alive
	Links                        int // now

	Dials, DialFailures  int64
	Joins, JoinFailures  int64 // push/pulls that this package asked for
	LinksMade, LinksLost int64
	LinksRefused         int64 // by us, at HELLO
	LinksFuture          int64 // of these: the incarnation is more than 10 min ahead of our clock
	LinksFull            int64 // of these: this node has MaxLinks
	LinksSurplus         int64 // closed because neither side wanted them
	SentBytes, RecvBytes int64 // on links that have ended

	APIConns                  int   // inbound, now
	APIConnsMade              int64 // inbound
	APIConnsRefused           int64 // inbound, at the greeting
	APIDials, APIDialFailures int64

	ServerConns                     int // these likewise, of ServerConns
	ServerConnsMade                 int64
	ServerConnsRefused              int64
	ServerDials, ServerDialFailures int64

	Removals     int64 // by operators, here
	RemovalsLost int64 // not told over a link that was busy; serf spreads them as well

	StreamsUnknown   int64 // first byte neither ours nor memberlist's, or none in time
	StreamsOverLimit int64 // closed unread: too many unidentified at once
	PacketsUnknown   int64
	PacketsOurs      int64 // begin with our byte; none is defined yet, so they are dropped
	PacketsDropped   int64 // memberlist was too slow
	MessagesOurs     int64 // gossip user messages with our byte; dropped as above
	NameConflicts    int64
	Claims           int64 // of these: a newer process of the name was said to be elsewhere, and was dialed
	IncsAbsurd       int64 // in serf tags: zero, unreadable, or more than 10 min ahead of our clock
	ForeignMembers   int64 // of another cluster, refused
	WarningsDropped  int64
	KnownFailures    int64 // writes of the file of known members that failed
	HealthScore      int   // Lifeguard: 0 is healthy
}

type counters struct {
	dials, dialFailures, joins, joinFailures           atomic.Int64
	linksMade, linksLost, linksRefused, sent, received atomic.Int64
	linksFuture                                        atomic.Int64
	streamsUnknown, streamsOverLimit                   atomic.Int64
	packetsUnknown, packetsOurs, packetsDropped        atomic.Int64
	messagesOurs, nameConflicts, foreignMembers        atomic.Int64
	warningsDropped                                    atomic.Int64
	linksFull, linksSurplus                            atomic.Int64
	api, server                                        portCounters
	removals, removalsLost                             atomic.Int64
	knownFailures, incsAbsurd, claims                  atomic.Int64
}

// portCounters count the connections of a port.
type portCounters struct{ made, refused, dials, dialFailures atomic.Int64 }

// refused counts a connection that this node does not take.
func (c *counters) refused(code refusal) {
	c.linksRefused.Add(1)
	switch code {
	case refusedFuture:
		c.linksFuture.Add(1)
	case refusedFull:
		c.linksFull.Add(1)
	}
}

func (c *counters) stats() Stats {
	return Stats{
		Dials: c.dials.Load(), DialFailures: c.dialFailures.Load(),
		Joins: c.joins.Load(), JoinFailures: c.joinFailures.Load(),
		LinksMade: c.linksMade.Load(), LinksLost: c.linksLost.Load(), LinksRefused: c.linksRefused.Load(),
		LinksFuture: c.linksFuture.Load(), LinksFull: c.linksFull.Load(), LinksSurplus: c.linksSurplus.Load(),
		APIConnsMade: c.api.made.Load(), APIConnsRefused: c.api.refused.Load(),
		APIDials: c.api.dials.Load(), APIDialFailures: c.api.dialFailures.Load(),
		ServerConnsMade: c.server.made.Load(), ServerConnsRefused: c.server.refused.Load(),
		ServerDials: c.server.dials.Load(), ServerDialFailures: c.server.dialFailures.Load(),
		Removals: c.removals.Load(), RemovalsLost: c.removalsLost.Load(),
		SentBytes: c.sent.Load(), RecvBytes: c.received.Load(),
		StreamsUnknown: c.streamsUnknown.Load(), StreamsOverLimit: c.streamsOverLimit.Load(),
		PacketsUnknown: c.packetsUnknown.Load(), PacketsOurs: c.packetsOurs.Load(), PacketsDropped: c.packetsDropped.Load(),
		MessagesOurs: c.messagesOurs.Load(), NameConflicts: c.nameConflicts.Load(),
		ForeignMembers: c.foreignMembers.Load(), WarningsDropped: c.warningsDropped.Load(),
		KnownFailures: c.knownFailures.Load(), IncsAbsurd: c.incsAbsurd.Load(), Claims: c.claims.Load(),
	}
}
