package group

import (
	"testing"

	"github.com/hashicorp/raft"
)

// Who waits is told, but nobody else: not one of whom nothing is known, nor one that was
// lost since.
func TestProgressWaits(t *testing.T) {
	p := newProgress()
	req := &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, LeaderCommitIndex: 5}
	p.appended("a", "addr", req, &raft.AppendEntriesResponse{Term: 3, Success: true})
	for _, c := range []struct {
		id           raft.ServerID
		term, index  uint64
		asked, known uint64
	}{
		{"a", 3, 5, 0, 1}, // it was told
		{"a", 3, 6, 6, 1},
		{"a", 3, 4, 6, 1},
		{"a", 2, 9, 6, 1}, // of a term that is over
		{"", 3, 9, 0, 1},  // the leader's own reads
		{"b", 3, 9, 0, 1},
	} {
		p.waits(c.id, c.term, c.index)
		if all := p.of(3); all[c.id].asked != c.asked || len(all) != int(c.known) {
			t.Errorf("after %+v: %+v", c, all)
		}
	}
	p.lostAt("addr")
	if f := p.of(3)["a"]; f.asked != 0 || f.commit != 0 || f.match != 7 {
		t.Errorf("a follower that was lost: %+v", f)
	}
}
