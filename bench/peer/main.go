package peer

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main serves stdin and stdout until told to stop, and ends the process.
func Main(start StartFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := Serve(ctx, os.Stdin, os.Stdout, start); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}
