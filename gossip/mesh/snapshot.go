package mesh

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
)

const maxSnapshot = 4 << 20 // serf compacts its file far below that

// readSnapshot takes the last known address of everybody whom serf's file of members names, at most
// maxFormer, those named last. Serf itself asks the ones that were alive, once; but who restarts at the
// end of a partition has all the others marked as dead there, and a single attempt may fail. What cannot
// be read is skipped. A file that does not exist is empty.
func readSnapshot(path string) ([]former, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("mesh: members file: %w", err)
	}
	defer f.Close()
	var known []former
	lines := bufio.NewScanner(io.LimitReader(f, maxSnapshot))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "alive: ")
		i := strings.LastIndexByte(rest, ' ')
		if !ok || i < 1 {
			continue
		}
		name, addr := rest[:i], rest[i+1:]
		if _, err := netip.ParseAddrPort(addr); err != nil || len(name) > maxName {
			continue
		}
		known = slices.DeleteFunc(known, func(o former) bool { return o.name == name })
		if len(known) == maxFormer {
			known = slices.Delete(known, 0, 1)
		}
		known = append(known, former{name: name, addr: addr})
	}
	return known, nil // a line that is too long ends it early; the rest is lost to us only
}
