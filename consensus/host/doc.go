// Package host runs the replicas of strong keyspaces of one server, and the system group
// that keeps their catalog.
//
// The catalog is a strong keyspace itself, "_system": its machine holds a placement.Server
// for each server and a placement.Keyspace for each keyspace. Its leader creates keyspaces,
// publishes the committed entries, from which every node learns whom to ask, and changes
// voters as placement.Policy decides. A server opens the replicas that the entries give it.
//
// The system group begins once, from an explicit list of servers, after a durable promise
// of each (placement.Bootstrap). A server that is not on the list joins by registering.
//
// All groups of a server share one listener, one log store and one stream to each other
// server for calls. Servers know each other by the names of their nodes.
package host
