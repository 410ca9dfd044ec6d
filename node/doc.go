// Package node is one running meshkv node: it opens the store, joins the mesh,
// holds the keyspaces, moves frames between them and the links, and serves the
// API. It decides nothing about replication.
package node
