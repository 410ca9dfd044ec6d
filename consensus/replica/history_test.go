package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/machine"
)

// What is kept of the past is bounded by changes, by bytes and by age, whichever is reached first, however
// many changes a revision has; when the quota is near, history goes before growth is refused.
func TestHistoryGoal(t *testing.T) {
	cfg := Config{HistoryChanges: 5000, HistoryBytes: 2 << 20, HistoryAge: time.Hour}
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		name                 string
		revisions, each, val int // how many, with how many changes of how many bytes
		age                  time.Duration
		room                 uint64 // what the quota leaves, in sixteenths of what there is; 0: all
		least, most          int    // changes that are kept
	}{
		{"little", 499, 1, 10, 0, 0, 499, 499},
		{"many changes", 9000, 1, 10, 0, 0, 5000, 5000},
		{"many changes in each revision", 900, 10, 10, 0, 0, 5000, 5000},
		{"many bytes", 5000, 1, 1000, 0, 0, 1000, 2000},
		{"many bytes, many changes in each revision", 50, 100, 1000, 0, 0, 1000, 2000},
		{"many bytes, few changes", 2000, 1, 32 << 10, 0, 0, 1000, 1000},
		{"many bytes, few revisions", 90, 100, 8 << 10, 0, 0, 1000, 1000},
		{"large values, but no more than are kept in any case", 900, 1, 8 << 10, 0, 0, 900, 900},
		{"one large revision", 1, 4000, 200, 0, 0, 4000, 4000},
		{"old", 499, 1, 10, time.Hour, 0, 100, 100},
		{"quota near", 4999, 1, 10, 0, 3, 500, 500},
		{"quota reached", 4999, 1, 10, 0, 1, 1, 1},
	} {
		m, index := machine.New(), uint64(0)
		apply := func(b machine.Body) {
			t.Helper()
			cmd, err := (&machine.Command{Body: b}).AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			index++
			if err := m.Apply(index, cmd).Err; err != nil {
				t.Fatal(err)
			}
		}
		h := newHistory(&Replica{cfg: cfg})
		for i := range tt.revisions {
			txn := &machine.Txn{}
			for j := range tt.each {
				txn.Then = append(txn.Then, &machine.Put{Key: fmt.Sprint(j), Value: make([]byte, tt.val)})
			}
			apply(txn)
			if i == 399 {
				h.goal(start, m.View()) // from here on it knows the age
			}
		}
		if tt.room > 0 {
			bytes := m.View().Status().Bytes
			apply(&machine.SetQuota{Bytes: bytes + tt.room*bytes/16})
		}
		if goal := h.goal(start.Add(tt.age), m.View()); goal > m.View().Status().Compacted {
			apply(&machine.Compact{Revision: goal})
		}
		if got := m.View().Status().Changes; got < tt.least || got > tt.most {
			t.Errorf("%s: keeps %d changes, want %d to %d", tt.name, got, tt.least, tt.most)
		}
		if again := h.goal(start.Add(tt.age), m.View()); again > m.View().Status().Compacted {
			t.Errorf("%s: compacts again, to %d of %d", tt.name, again, m.View().Status().Revision)
		}
	}
}
