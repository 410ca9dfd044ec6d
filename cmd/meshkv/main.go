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
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel(errInterrupted) // the command ends in good order
		<-signals
		os.Exit(codeInterrupted) // it was not fast enough for the user
	}()
	os.Exit(newApp(os.Stdin, os.Stdout, os.Stderr, os.LookupEnv).run(ctx, os.Args[1:]))
}
