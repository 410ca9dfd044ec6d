package logstore

import "github.com/hashicorp/raft"

// newest is the end of a log in memory, so that sending it to followers reads no
// file. It holds at most len(ring) entries and maxBytes of them.
type newest struct {
	ring     []raft.Log // by index; made with the first entry
	entries  int        // what len(ring) becomes
	maxBytes int
	held     span
	bytes    int
}

func (n *newest) slot(index uint64) *raft.Log { return &n.ring[index%uint64(len(n.ring))] }

// get sets log to the entry at index and reports whether it is there.
func (n *newest) get(index uint64, log *raft.Log) bool {
	if !n.held.contains(index) {
		return false
	}
	*log = *n.slot(index)
	return true
}

// add puts log, which follows the others, behind them. Those that do not fit beside it are forgotten,
// and so is it if it is larger than all may be. It shares the bytes of log.
func (n *newest) add(log *raft.Log) {
	size := entrySize(log)
	for n.held.last != 0 && (n.bytes+size > n.maxBytes || n.held.last-n.held.first+1 == uint64(n.entries)) {
		n.keep(span{n.held.first + 1, n.held.last})
	}
	if size > n.maxBytes {
		return
	}
	if n.ring == nil {
		n.ring = make([]raft.Log, n.entries)
	}
	*n.slot(log.Index) = *log
	n.bytes += size
	n.held.last = log.Index
	if n.held.first == 0 {
		n.held.first = log.Index
	}
}

// keep forgets the entries outside of held.
func (n *newest) keep(held span) {
	for i := n.held.first; n.held.contains(i) && !held.contains(i); i++ {
		n.forget(i)
		n.held.first++
	}
	for i := n.held.last; n.held.contains(i) && !held.contains(i); i-- {
		n.forget(i)
		n.held.last--
	}
	if n.held.first > n.held.last {
		n.held = span{}
	}
}

func (n *newest) forget(index uint64) {
	n.bytes -= entrySize(n.slot(index))
	*n.slot(index) = raft.Log{}
}
