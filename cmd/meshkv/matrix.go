package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

const (
	// maxAsked bounds the nodes that are asked at once.
	maxAsked = 16
	// matrixNodes is how many columns fit a terminal; beyond, the table lists pairs.
	matrixNodes = 10
)

// A view is how one node sees the others.
type view struct {
	node    string
	err     error // it could not be asked
	members map[string]client.Member
	linked  map[string]bool
}

// views asks every member that is alive for its own view, by name.
func (a *app) views(ctx context.Context) (names []string, all []view, err error) {
	c, err := a.connect(ctx, a.addr)
	if err != nil {
		return nil, nil, err
	}
	members, err := c.Members(ctx)
	c.Close()
	if err != nil {
		return nil, nil, fmt.Errorf("members: %w", err)
	}
	for _, m := range members {
		if m.Status == client.MemberLeft {
			continue
		}
		names = append(names, m.Name)
		all = append(all, view{node: m.Name})
	}
	var asking sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for i, name := range names {
		m := members[slices.IndexFunc(members, func(m client.Member) bool { return m.Name == name })]
		asking.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all[i].members, all[i].linked, all[i].err = a.viewOf(ctx, m)
		})
	}
	asking.Wait()
	return names, all, nil
}

// viewOf asks one member. One that does not answer is known after 3 s.
func (a *app) viewOf(ctx context.Context, m client.Member) (members map[string]client.Member, linked map[string]bool, err error) {
	addr := memberAPI(m)
	if addr == "" {
		return nil, nil, fmt.Errorf("%s announces no API", m.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := a.connect(ctx, addr)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	list, err := c.Members(ctx)
	if err != nil {
		return nil, nil, err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return nil, nil, err
	}
	members, linked = make(map[string]client.Member), make(map[string]bool)
	for _, m := range list {
		members[m.Name] = m
	}
	for _, l := range st.Links {
		linked[l.Peer] = true
	}
	return members, linked, nil
}

func (a *app) rttCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rtt",
		Short: "Print the round-trip times between all nodes, each as that node measures it",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.matrix(cmd.Context(), "rtt_ms", func(v *view, to string) (cell string, value any, noted bool) {
				rtt := v.members[to].RTT
				if rtt == 0 {
					return "?", nil, false
				}
				return brief(rtt), millis(rtt), true
			})
		},
	}
	return a.clientFlags(cmd)
}

func (a *app) reachabilityCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reachability",
		Short: "Print how every node sees every other: alive, suspect or failed",
		Long: "Print how every node sees every other: alive, suspect, failed or unknown, with a + where there is a\n" +
			"link between the two. In a large cluster no two nodes need have a link. Exit code 1 if a node that\n" +
			"answers does not see another that answers as alive.",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			split := 0
			err := a.matrix(cmd.Context(), "status", func(v *view, to string) (cell string, value any, noted bool) {
				m, ok := v.members[to]
				if !ok {
					split++
					return "unknown", "unknown", true
				}
				if m.Status != client.MemberAlive {
					split++
				}
				if cell = string(m.Status); v.linked[to] {
					cell += "+"
				}
				return cell, m.Status, m.Status != client.MemberAlive
			})
			if err == nil && split > 0 {
				return &failure{text: fmt.Sprintf("%d views of a node are not alive", split)}
			}
			return err
		},
	}
	return a.clientFlags(cmd)
}

// matrix prints what every node says of every other. of tells the cell of a
// table, the value in JSON, and whether a long list shall show it.
func (a *app) matrix(ctx context.Context, field string, of func(v *view, to string) (cell string, value any, noted bool)) error {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	names, all, err := a.views(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if v.err != nil {
			fmt.Fprintf(a.stderr, "%s could not be asked: %s\n", printable(v.node), oneLine(v.err.Error()))
		}
	}
	wide := len(names) > matrixNodes
	var t *table
	switch {
	case a.output != formatTable:
	case wide:
		t = newTable(a.stdout, "FROM", "TO", strings.ToUpper(strings.TrimSuffix(field, "_ms")))
	default:
		t = newTable(a.stdout, append([]string{"FROM \\ TO"}, names...)...)
	}
	for i := range all {
		v := &all[i]
		row := []string{v.node}
		for _, to := range names {
			if to == v.node || v.err != nil {
				row = append(row, "")
				continue
			}
			cell, value, noted := of(v, to)
			row = append(row, cell)
			switch {
			case a.output == formatJSON:
				err = a.printJSON(map[string]any{"from": v.node, "to": to, field: value, "link": v.linked[to]})
			case a.output == formatRaw:
				_, err = fmt.Fprintf(a.stdout, "%s\t%s\t%s\n", printable(v.node), printable(to), cell)
			case wide && noted:
				t.row(v.node, to, cell)
			}
			if err != nil {
				return err
			}
		}
		if t != nil && !wide {
			t.row(row...)
		}
	}
	if t != nil {
		return t.end()
	}
	return nil
}
