package api

import (
	"context"

	"github.com/meshkv/meshkv/client"
)

// pageBytes is when a page of a list is full: a reader's speed is none of the
// backend's business, so a list is taken from it page by page.
const pageBytes = 256 << 10

// takePage collects entries of a list until pageBytes or o.Limit, and reports
// whether the list may go on after the last of them.
func takePage(ctx context.Context, ks contents, prefix string, o client.ListOptions) ([]client.Entry, bool, error) {
	var entries []client.Entry
	size := 0
	for e, err := range ks.List(ctx, prefix, &o) {
		if err != nil {
			return nil, false, err
		}
		entries = append(entries, e)
		if size += len(e.Key) + len(e.Value) + 64; size >= pageBytes {
			return entries, o.Limit <= 0 || len(entries) < o.Limit, nil
		}
	}
	return entries, false, nil
}
