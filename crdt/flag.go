package crdt

import (
	"fmt"
	"iter"
)

// The paths of a flag's cells.
const (
	onPath  = "on"
	offPath = "off"
)

// FlagSet enables or disables a flag. kind says who wins of two that did not see each other: with KindFlag the one
// that enables, with KindInverseFlag the one that disables.
func (d *Draft) FlagSet(key string, kind Kind, enabled bool) error {
	if kind != KindFlag && kind != KindInverseFlag {
		return fmt.Errorf("%w: a %v is no flag", ErrWrongType, kind)
	}
	if err := d.want(key, kind); err != nil {
		return err
	}
	if err := d.removeAll(d.under(key, "", kind)); err != nil {
		return err
	}
	path := offPath
	if enabled {
		path = onPath
	}
	return d.add(Cell{Key: key, Path: path, Kind: kind})
}

// FlagValue is whether a flag with these cells is enabled. One without cells is not.
func FlagValue(cells iter.Seq[*Cell], kind Kind) (enabled bool) {
	var on, off bool
	for c := range cells {
		if c.Kind == kind {
			on, off = on || c.Path == onPath, off || c.Path == offPath
		}
	}
	return on && (kind == KindFlag || !off)
}
