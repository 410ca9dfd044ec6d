package crdt

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
)

// The paths of a log's cells.
const (
	entryPath = "e" // and 24 bytes that order the entries: HLC, incarnation, seq
	capPath   = "c" // how many entries are kept
)

// MaxLogCap is the most entries that a log keeps, and how many it keeps if nothing else was said.
const MaxLogCap = 4096

// LogAppend adds an entry to a log, and removes the oldest that are seen beyond its cap. Entries are ordered by their HLC:
// one that was appended where another was seen comes after it.
func (d *Draft) LogAppend(key string, value []byte) error {
	if err := d.want(key, KindLog); err != nil {
		return err
	}
	if err := d.trim(key, 1); err != nil {
		return err
	}
	dot := d.next()
	path := binary.BigEndian.AppendUint64([]byte(entryPath), uint64(d.at))
	path = binary.BigEndian.AppendUint64(path, uint64(dot.Inc))
	path = binary.BigEndian.AppendUint64(path, dot.Seq)
	if err := d.add(Cell{Key: key, Path: string(path), Kind: KindLog, Value: value}); err != nil {
		return err
	}
	d.logs[key] = append(d.logs[key], d.added[len(d.added)-1])
	return nil
}

// LogCap bounds how many entries a log keeps, 1 to MaxLogCap, which is the default.
func (d *Draft) LogCap(key string, n int) error {
	if err := d.want(key, KindLog); err != nil {
		return err
	}
	if n < 1 || n > MaxLogCap {
		return fmt.Errorf("%w: a log keeps 1 to %d entries, not %d", ErrRange, MaxLogCap, n)
	}
	if err := d.replace(key, capPath, KindLog, binary.AppendUvarint(nil, uint64(n)), Lifetime{}); err != nil {
		return err
	}
	return d.trim(key, 0)
}

// trim removes the oldest entries, so that there is room for more new ones; or as many as an op may: after a partition there
// can be twice as many as are kept. What is over is not shown, and goes with the next ones.
func (d *Draft) trim(key string, more int) error {
	keep := logCap(d.place(key, capPath, KindLog)) - more
	entries, ok := d.logs[key]
	if !ok {
		entries = slices.Collect(d.under(key, entryPath, KindLog)) // held ones first, which are older than those of this draft
	}
	n := min(max(len(entries)-keep, 0), MaxRemoves-len(d.gone))
	for _, c := range entries[:n] {
		if err := d.remove(c); err != nil {
			return err
		}
	}
	if d.logs == nil {
		d.logs = make(map[string][]*Cell)
	}
	d.logs[key] = entries[n:]
	return nil
}

// logCap is what the newest of the cells at capPath says.
func logCap(cells []*Cell) int {
	newest := newestOf(cells)
	if newest == nil {
		return MaxLogCap
	}
	v := varints{newest.Value}
	return int(min(max(v.next(), 1), MaxLogCap))
}

// LogEntries is the entries that a log with these cells shows, the oldest first: concurrent appends may
// leave more than its cap, of which the newest are shown. cells come ascending by ComparePaths.
func LogEntries(cells iter.Seq[*Cell]) []*Cell {
	var entries, caps []*Cell
	for c := range cells {
		switch {
		case c.Kind != KindLog:
		case c.Path == capPath:
			caps = append(caps, c)
		default:
			entries = append(entries, c)
		}
	}
	return entries[max(len(entries)-logCap(caps), 0):]
}
