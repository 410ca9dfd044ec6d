// Command meshkv runs and uses meshkv nodes.
//
// It holds flags, the configuration file and output; what a node does is in
// package node, what a client does in package client. The commands, their
// output and their exit codes are described in docs/cli.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(newApp(os.Stdin, os.Stdout, os.Stderr, os.LookupEnv).runProcess())
}

// runProcess runs the command line of this process, with its signals.
func (a *app) runProcess() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go a.signals.follow(signals, cancel)
	return a.run(ctx, os.Args[1:])
}
