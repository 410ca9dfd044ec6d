// Package strong serves the calls of strong keyspaces from a replica: it translates between
// the public types of package client and the commands and reads of the state machine.
package strong
