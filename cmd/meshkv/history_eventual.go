package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
)

// printHistory prints what a node remembers of a key of an eventual keyspace.
func (a *app) printHistory(h client.History, err error) error {
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if len(h.Events) == 0 && a.output != formatJSON {
		return fmt.Errorf("history: nothing of this key since %s at %s: %w", stamp(h.Since), h.Node, client.ErrNotFound)
	}
	switch a.output {
	case formatJSON:
		return a.printJSON(h)
	case formatRaw:
		for _, e := range h.Events {
			if _, err := fmt.Fprintf(a.stdout, "%s\t%s\t%s\n", e.Type, e.Version, e.Origin); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(a.stdout, "ARRIVED", "EVENT", "ORIGIN", "LAG", "VALUE", "VERSION", "REMOVED")
	for _, e := range h.Events {
		t.row(orUnknown(stamp(e.Arrived)), historyEvent(e), orUnknown(e.Origin), historyLag(e), historyValue(e), orUnknown(e.Version.String()), historyRemoved(e))
	}
	if err := t.end(); err != nil {
		return err
	}
	if h.More {
		fmt.Fprintf(a.stderr, "meshkv: there is more; --limit shows it\n")
	}
	fmt.Fprintf(a.stderr, "meshkv: as %s saw it since %s\n", h.Node, stamp(h.Since))
	return nil
}

func orUnknown(text string) string {
	if text == "" {
		return "?"
	}
	return text
}

func historyEvent(e client.HistoryEvent) string {
	if e.Type == client.HistoryPut && !e.Shown {
		return "put, not shown"
	}
	return string(e.Type)
}

func historyLag(e client.HistoryEvent) string {
	if e.Modified.IsZero() || e.Arrived.IsZero() {
		return ""
	}
	return e.Lag().Round(time.Millisecond).String()
}

func historyValue(e client.HistoryEvent) string {
	switch {
	case e.Value != nil:
		return shorten(e.Value)
	case e.Bytes > 0:
		return count(e.Bytes) + " bytes"
	}
	return ""
}

func historyRemoved(e client.HistoryEvent) string {
	var all []string
	for i, v := range e.Removes {
		if i == 3 {
			all = append(all, fmt.Sprintf("and %d more", len(e.Removes)-i))
			break
		}
		all = append(all, v.String())
	}
	return strings.Join(all, " ")
}
