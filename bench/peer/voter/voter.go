// Package voter is the command line of the servers that bench/strong starts: one
// process of a cluster whose members are all known from the beginning.
package voter

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// A Peer is a member and the address at which the others reach it.
type Peer struct{ Name, Addr string }

// Spec is what a member is told.
type Spec struct {
	Name    string
	Dir     string // of its data; may not exist
	Client  string // address for clients
	Peer    string // address for the other members
	Cluster []Peer // all members, this one included
}

// Args is the command line that makes Main give s.
func (s Spec) Args() []string {
	peers := make([]string, len(s.Cluster))
	for i, p := range s.Cluster {
		peers[i] = p.Name + "=" + p.Addr
	}
	return []string{"-name", s.Name, "-dir", s.Dir, "-client", s.Client, "-peer", s.Peer, "-cluster", strings.Join(peers, ",")}
}

// Main runs a member until SIGTERM, and ends the process.
func Main(run func(ctx context.Context, s Spec) error) {
	var s Spec
	flag.StringVar(&s.Name, "name", "", "of this member")
	flag.StringVar(&s.Dir, "dir", "", "of its data")
	flag.StringVar(&s.Client, "client", "", "address for clients")
	flag.StringVar(&s.Peer, "peer", "", "address for the other members")
	cluster := flag.String("cluster", "", "all members: name=address,...")
	flag.Parse()
	for word := range strings.SplitSeq(*cluster, ",") {
		name, addr, ok := strings.Cut(word, "=")
		if !ok {
			fmt.Fprintf(os.Stderr, "no name=address: %q\n", word)
			os.Exit(2)
		}
		s.Cluster = append(s.Cluster, Peer{name, addr})
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, s.Name+":", err)
		os.Exit(1)
	}
}
