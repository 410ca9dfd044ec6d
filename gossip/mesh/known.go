package mesh

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/meshkv/meshkv/internal/durable"
)

// The file of known members stands beside serf's, whose compaction removes the old file before it has the new one,
// and which knows nothing of seeds. It is small, is replaced in one step, and has one line for each:
//
//	seed host:port
//	member name ip:port
//
// What cannot be read is skipped.
const (
	knownExt  = ".known"
	knownPace = 10 * time.Second // of writing it
	maxKnown  = 64 << 10         // bytes; maxSeeds and maxFormer lines are far shorter
)

type known struct {
	seeds   []string
	members []former // at most maxFormer
}

// readKnown reads the file. One that does not exist is empty.
func readKnown(path string) (known, error) {
	var k known
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, fmt.Errorf("mesh: known members: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxKnown))
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		switch {
		case len(w) == 2 && w[0] == "seed" && len(k.seeds) < maxSeeds && len(w[1]) <= maxAddr:
			if _, _, err := net.SplitHostPort(w[1]); err == nil {
				k.seeds = append(k.seeds, w[1])
			}
		case len(w) == 3 && w[0] == "member" && len(k.members) < maxFormer && checkName(w[1]) == nil:
			if _, err := netip.ParseAddrPort(w[2]); err == nil {
				k.members = append(k.members, former{name: w[1], addr: w[2]})
			}
		}
	}
	return k, nil
}

func (k known) text() []byte {
	var b bytes.Buffer
	for _, s := range k.seeds {
		fmt.Fprintf(&b, "seed %s\n", s)
	}
	for _, m := range k.members {
		fmt.Fprintf(&b, "member %s %s\n", m.name, m.addr)
	}
	return b.Bytes()
}

// recall takes what earlier processes knew. Configured seeds replace those of the file; without any, those of the
// file are used, so that a node that was started with them once finds the cluster again without.
func (m *Mesh) recall() error {
	members, err := readSnapshot(m.cfg.SnapshotPath)
	if err != nil {
		return err
	}
	k, err := readKnown(m.cfg.SnapshotPath + knownExt)
	if err != nil {
		return err
	}
	if len(m.cfg.Join) == 0 {
		m.cfg.Join = k.seeds
	}
	for _, f := range k.members { // serf's file is the newer one, where it has the name
		if !slices.ContainsFunc(members, func(o former) bool { return o.name == f.name }) {
			members = append(members, f)
		}
	}
	m.recalled = members
	return nil
}

// keepKnown writes the file whenever it would be another one, not more often than every knownPace, and at the end.
func (m *Mesh) keepKnown(ctx context.Context) {
	path := m.cfg.SnapshotPath + knownExt
	written := []byte(nil)
	last := m.recalled
	ticker := time.NewTicker(knownPace)
	defer ticker.Stop()
	for first := true; ; first = false {
		m.mu.Lock()
		last = m.roster.known(last)
		m.mu.Unlock()
		if text := (known{seeds: m.cfg.Join, members: last}).text(); !bytes.Equal(text, written) {
			if err := durable.ReplaceFile(path, text); err != nil {
				m.count.knownFailures.Add(1)
				m.cfg.Logger.Warn("known members not written", "err", err)
			} else {
				written = text
			}
		}
		if ctx.Err() != nil {
			return
		}
		// Soon after the start, too: a process that dies young shall remember.
		var soon <-chan time.Time
		if first {
			soon = time.After(knownPace / 10)
		}
		select {
		case <-ctx.Done():
		case <-soon:
		case <-ticker.C:
		}
	}
}

// known are at most maxFormer members to whom a later process may turn: alive ones first, and of these
// who was in the last list, so that it does not change with every member that comes; then failed and former ones.
func (r *roster) known(last []former) []former {
	var out []former
	have := make(map[string]bool)
	add := func(name, addr string) {
		if len(out) < maxFormer && !have[name] {
			have[name] = true
			out = append(out, former{name: name, addr: addr})
		}
	}
	for _, f := range last {
		if rec := r.records[f.name]; rec != nil && rec.member.Status == StatusAlive {
			add(f.name, r.view(rec).Addr)
		}
	}
	for _, s := range []Status{StatusAlive, StatusFailed} {
		for _, rec := range r.order {
			if rec.member.Status == s && !rec.left() {
				add(rec.member.Name, r.view(rec).Addr)
			}
		}
	}
	for _, f := range r.former {
		add(f.name, f.addr)
	}
	slices.SortFunc(out, func(a, b former) int { return strings.Compare(a.name, b.name) })
	return out
}
