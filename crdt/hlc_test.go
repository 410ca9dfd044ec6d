package crdt

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestHLCNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := HLC(rapid.OneOf(rapid.Uint64Range(0, 1<<19), rapid.Uint64Range(0, 1<<62)).Draw(t, "h"))
		wall := rapid.OneOf(rapid.Int64Range(-2, 9), rapid.Int64Range(0, 1<<46)).Draw(t, "wall")
		next := h.Next(wall)
		if next <= h {
			t.Fatalf("%v does not follow %v", next, h)
		}
		if next.WallMs() < wall {
			t.Fatalf("%v is before the wall time %d", next, wall)
		}
		if wall > h.WallMs() && next != HLCAt(wall) {
			t.Fatalf("%v, not at the wall time %d", next, wall)
		}
	})
}

func TestHLCFields(t *testing.T) {
	tests := []struct {
		h       HLC
		wall    int64
		logical uint16
		text    string
	}{
		{0, 0, 0, "0.0"},
		{HLCAt(1700000000000), 1700000000000, 0, "1700000000000.0"},
		{HLCAt(5) + 3, 5, 3, "5.3"},
		{(HLCAt(5) + math.MaxUint16).Next(5), 6, 0, "6.0"}, // the count overflows
		{HLCAt(-1), 0, 0, "0.0"},
	}
	for _, tt := range tests {
		if tt.h.WallMs() != tt.wall || tt.h.Logical() != tt.logical || tt.h.String() != tt.text {
			t.Errorf("%d: got %d, %d, %s want %d, %d, %s", tt.h, tt.h.WallMs(), tt.h.Logical(), tt.h, tt.wall, tt.logical, tt.text)
		}
	}
}

func TestIncFields(t *testing.T) {
	inc := NewInc(1700000000000, math.MaxUint64)
	if inc.BirthMs() != 1700000000000 || uint64(inc)&(1<<22-1) != 1<<22-1 {
		t.Errorf("%s: born %d", inc, inc.BirthMs())
	}
	if later := NewInc(1700000000001, 0); later <= inc {
		t.Errorf("%s is not after %s", later, inc)
	}
}

func TestVisible(t *testing.T) {
	tests := []struct {
		name  string
		cell  Cell
		now   int64
		owner OwnerState
		want  Visibility
	}{
		{"plain", Cell{}, 10, OwnerClosed, Shown},
		{"before it expires", Cell{Expires: 11}, 10, OwnerAlive, Shown},
		{"when it expires", Cell{Expires: 10}, 10, OwnerAlive, HiddenExpired},
		{"owner alive", Cell{Flags: FlagEphemeral}, 10, OwnerAlive, Shown},
		{"owner failed", Cell{Flags: FlagEphemeral}, 10, OwnerFailed, HiddenOwnerFailed},
		{"owner closed", Cell{Flags: FlagEphemeral}, 10, OwnerClosed, HiddenOwnerClosed},
		{"both", Cell{Flags: FlagEphemeral, Expires: 9}, 10, OwnerClosed, HiddenExpired},
	}
	for _, tt := range tests {
		if got := Visible(&tt.cell, tt.now, tt.owner); got != tt.want {
			t.Errorf("%s: got %d want %d", tt.name, got, tt.want)
		}
	}
}

// The newest by (HLC, Inc, Seq) is shown.
func TestCellCompare(t *testing.T) {
	ascending := []*Cell{
		{HLC: 1, Dot: Dot{9, 9}},
		{HLC: 2, Dot: Dot{1, 9}},
		{HLC: 2, Dot: Dot{2, 1}},
		{HLC: 2, Dot: Dot{2, 2}},
	}
	for i, a := range ascending {
		for j, b := range ascending {
			if got := a.Compare(b); got != min(1, max(-1, i-j)) {
				t.Errorf("%d against %d: %d", i, j, got)
			}
		}
	}
}
