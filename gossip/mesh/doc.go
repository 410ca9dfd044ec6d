// Package mesh connects a node with the others: who is there, and a stream to each.
//
// Membership is SWIM (Das et al. 2002, with the Lifeguard extensions) as serf over
// memberlist run it. Both of them, and our own streams, share one port: UDP packets and
// TCP streams are told apart by their first byte ([transport]). A stock serf node can be a
// member; it has no incarnation tag, and no [Link] is made to it.
//
// A [Link] is the one TCP stream between two nodes. Both may dial; the stream dialed by
// the lower name stays. It begins with a HELLO each way (cluster, name, incarnation,
// address) and carries checksummed frames. What the frames mean is not this package's
// matter. A third kind of stream carries the API to members that hold what others lack
// ([Mesh.DialAPI]).
//
// # Promises
//
//   - A node that was killed is reported failed within about 5 s with the default
//     [Timings] in clusters up to ten nodes, 7 s at 100 (see there for the arithmetic).
//   - Failed members and seeds are redialed at least every 2 s, for as long as the member
//     is not reaped and at a slower pace afterwards; with more than 32 alive members each
//     dials more seldom, so that all together do so about 16 times a second. A first answer
//     merges both memberships again, so that a partition of any length heals by itself.
//   - Links exist where one of two nodes wants them ([Mesh.Want]), MaxLinks at most. A member
//     to which none is wanted is not suspect for having none.
//   - A member that can be heard over its link is not shown as failed, whatever SWIM says.
//   - [Mesh.Events] never loses a state: it gives the latest one of each member that
//     changed, and may leave out those in between.
//   - A process that starts again under its name, at the same address or another one, is
//     known by its new incarnation as soon as it has a link, before the old one is found
//     to have failed.
//   - When Run returns, no goroutine of this package is left.
//
// The decisions (whom to dial, which of two links stays, what a member's state is) are in
// the roster, which knows neither sockets nor clocks. The rest is its driver.
package mesh
