package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

const (
	barEvery = 250 * time.Millisecond
	barWidth = 24
	eraseRow = "\r\x1b[K"
)

// A bar is the last line of a terminal, written over and over; what is written
// by others goes above it. It is an io.Writer, safe for concurrent use. Without
// a terminal it passes on what is written and shows nothing.
type bar struct {
	terminal bool

	mu   sync.Mutex // protects the fields below
	w    io.Writer
	line string
}

func newBar(w io.Writer) *bar { return &bar{w: w, terminal: isTerminal(w)} }

// show makes line the last line; empty: there is none.
func (b *bar) show(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.terminal || line == b.line {
		return
	}
	b.line = line
	io.WriteString(b.w, eraseRow+line)
}

func (b *bar) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.line == "" {
		return b.w.Write(p)
	}
	if _, err := io.WriteString(b.w, eraseRow); err != nil {
		return 0, err
	}
	n, err := b.w.Write(p)
	if err == nil {
		_, err = io.WriteString(b.w, b.line)
	}
	return n, err
}

// cut bounds a line so that it does not wrap: a bar that takes two rows cannot be
// written over.
func cut(line string) string {
	const limit = 79
	runes := []rune(printable(line))
	if len(runes) <= limit {
		return string(runes)
	}
	return string(runes[:limit-3]) + "..."
}

// fillLine is the progress of the keyspaces of a node that are being filled;
// empty if none is.
func fillLine(st client.Status) string {
	var running []client.KeyspaceStatus
	done, total := 0, 0
	for _, k := range st.Keyspaces {
		if k.Bootstrap.Running {
			running = append(running, k)
			done, total = done+k.Bootstrap.Done, total+k.Bootstrap.Total
		}
	}
	if len(running) == 0 {
		return ""
	}
	what := fmt.Sprintf("%d keyspaces", len(running))
	from := ""
	if len(running) == 1 {
		what = named(running[0].Name)
		if peer := running[0].Bootstrap.Peer; peer != "" {
			from = " from " + named(peer)
		}
	}
	full := 0
	if total > 0 {
		full = min(barWidth*done/total, barWidth)
	}
	return fmt.Sprintf("%s [%s%s] %s of %s%s", what, strings.Repeat("#", full), strings.Repeat("-", barWidth-full), thousands(done), thousands(total), from)
}

// followStart shows on b how far the node is, until it is ready or ctx ends.
func followStart(ctx context.Context, b *bar, node client.Cluster) {
	defer b.show("")
	ticker := time.NewTicker(barEvery)
	defer ticker.Stop()
	for {
		st, err := node.Status(ctx)
		if err != nil || st.Ready {
			return
		}
		line := fillLine(st)
		if line == "" && len(st.NotReady) > 0 {
			line = "waiting: " + st.NotReady[0]
		}
		b.show(cut(line))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
