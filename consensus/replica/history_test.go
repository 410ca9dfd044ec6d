package replica

import (
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/machine"
)

// What is kept of the past is bounded by changes, by bytes and by age, whichever is reached first; when the
// quota is near, history goes before growth is refused.
func TestHistoryGoal(t *testing.T) {
	cfg := Config{HistoryChanges: 5000, HistoryBytes: 1 << 20, HistoryAge: time.Hour}
	const quota = 1 << 30
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		name string
		age  time.Duration // since revision 400 was seen
		st   machine.Status
		want machine.Revision
	}{
		{"little", 0, machine.Status{Revision: 500, Changes: 499, History: 150_000}, 0},
		{"many changes", 0, machine.Status{Revision: 9000, Changes: 8999, History: 900_000}, 4000},
		{"many bytes", 0, machine.Status{Revision: 5001, Changes: 5000, History: 2 << 20}, 2501},
		{"many bytes, few changes", 0, machine.Status{Revision: 2001, Changes: 2000, History: 64 << 20}, 1001},
		{"large values, but no more than are kept in any case", 0, machine.Status{Revision: 901, Changes: 900, History: 64 << 20}, 0},
		{"old", time.Hour, machine.Status{Revision: 500, Changes: 499, History: 150_000}, 400},
		{"compacted already", 0, machine.Status{Revision: 9000, Compacted: 8000, Changes: 1000, History: 300_000}, 8000},
		{"quota near", 0, machine.Status{Revision: 5000, Changes: 4999, Bytes: quota - quota/8, History: 1000}, 4500},
		{"quota reached", 0, machine.Status{Revision: 5000, Changes: 4999, Bytes: quota - 1, History: 1000}, 5000},
	} {
		h := newHistory(&Replica{cfg: cfg})
		h.goal(start, machine.Status{Revision: 400, Quota: quota})
		tt.st.Quota = quota
		if got := h.goal(start.Add(tt.age), tt.st); got != tt.want {
			t.Errorf("%s: keeps from revision %d, want %d", tt.name, got, tt.want)
		}
	}
}
