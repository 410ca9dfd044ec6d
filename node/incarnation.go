package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/internal/durable"
)

// An incarnation is whose start last wrote into a data directory. It is only
// used to close that incarnation, never to write with it again.
type incarnation struct {
	Name string
	Inc  crdt.Inc
}

// readIncarnation reads what writeIncarnation wrote. A file that does not exist
// is the zero incarnation.
func readIncarnation(path string) (incarnation, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return incarnation{}, nil
	}
	if err != nil {
		return incarnation{}, fmt.Errorf("read former incarnation: %w", err)
	}
	name, hex, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	inc, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return incarnation{}, fmt.Errorf("read former incarnation: %s holds %q", path, b)
	}
	return incarnation{Name: name, Inc: crdt.Inc(inc)}, nil
}

// writeIncarnation replaces the file in one step.
func writeIncarnation(path string, in incarnation) error {
	if err := durable.ReplaceFile(path, fmt.Appendf(nil, "%s %s\n", in.Name, in.Inc)); err != nil {
		return fmt.Errorf("write incarnation: %w", err)
	}
	return nil
}
