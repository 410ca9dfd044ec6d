package storage

import (
	"context"
	"errors"
	"testing"
)

// TryCutCheckpoint is CutCheckpoint for a checkpoint that may have fewer than n
// transactions.
func TryCutCheckpoint(t *testing.T, s Store, n int) {
	t.Helper()
	c, err := s.(*disk).freeze()
	if err != nil {
		t.Fatal(err)
	}
	c.pause = func(context.Context) error {
		if n--; n == 0 {
			return errCut
		}
		return nil
	}
	if err := c.run(context.Background()); err != nil && !errors.Is(err, errCut) {
		t.Fatal(err)
	}
}
