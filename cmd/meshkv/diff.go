package main

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff KS NODE NODE",
		Short: "Print the keys of a keyspace that differ between two nodes",
		Long: "Print the keys of a keyspace that differ between two nodes, with their versions. A node is the name of\n" +
			"a member or the address of its API. Exit code 1 if they differ, as diff(1) has it.",
		Example: "  meshkv diff endpoints host-1 host-2\n  meshkv diff endpoints 127.0.0.1:7951 127.0.0.1:7961",
		Args:    exactArgs("KS", "NODE", "NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkKeyspace(args[0]); err != nil {
				return err
			}
			return a.diff(cmd.Context(), args[0], args[1], args[2])
		},
	}
	return a.clientFlags(cmd)
}

func (a *app) diff(ctx context.Context, keyspace, left, right string) error {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	var sides [2]client.Keyspace
	for i, node := range []string{left, right} {
		addr, err := a.nodeAPI(ctx, node)
		if err != nil {
			return err
		}
		c, err := a.connect(ctx, addr)
		if err != nil {
			return fmt.Errorf("diff: node %s: %w", node, err)
		}
		defer c.Close()
		if sides[i], err = c.Keyspace(ctx, keyspace); err != nil {
			return fmt.Errorf("diff: node %s: %w", node, err)
		}
	}

	var t *table
	differing := 0
	for d, err := range differences(ctx, sides[0], sides[1]) {
		if err != nil {
			return fmt.Errorf("diff: %w", err)
		}
		differing++
		switch a.output {
		case formatJSON:
			j := jsonDifference{Nodes: map[string]jsonVersion{left: {d.left.String()}, right: {d.right.String()}}}
			j.Key, j.KeyB64 = jsonKey(d.key)
			err = a.printJSON(j)
		case formatRaw:
			_, err = fmt.Fprintln(a.stdout, d.key)
		default:
			if t == nil {
				t = newTable(a.stdout, "KEY", strings.ToUpper(left), strings.ToUpper(right))
			}
			t.row(d.key, d.left.String(), d.right.String())
		}
		if err != nil {
			return err
		}
	}
	if t != nil {
		if err := t.end(); err != nil {
			return err
		}
	}
	if differing > 0 {
		return &failure{text: fmt.Sprintf("keyspace %s: %d keys differ between %s and %s", keyspace, differing, left, right)}
	}
	if a.output == formatTable {
		fmt.Fprintf(a.stderr, "no key of %s differs between %s and %s\n", keyspace, left, right)
	}
	return nil
}

type jsonDifference struct {
	Key    string                 `json:"key,omitempty"`
	KeyB64 []byte                 `json:"key_b64,omitempty"`
	Nodes  map[string]jsonVersion `json:"nodes"` // by the names given on the command line
}

type jsonVersion struct {
	Version string `json:"version"` // empty: the node does not show the key
}

// nodeAPI finds the API address of a node given by name or address.
func (a *app) nodeAPI(ctx context.Context, node string) (string, error) {
	if strings.Contains(node, ":") {
		return node, nil
	}
	c, err := a.connect(ctx, a.addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	members, err := c.Members(ctx)
	if err != nil {
		return "", fmt.Errorf("members: %w", err)
	}
	var names []string
	for _, m := range members {
		names = append(names, m.Name)
		switch {
		case m.Name != node:
		case memberAPI(m) == "":
			return "", fmt.Errorf("node %s announces no API: give its address as HOST:PORT", node)
		default:
			return memberAPI(m), nil
		}
	}
	return "", fmt.Errorf("%w: no member is called %s (members: %s)", client.ErrNotFound, printable(node), strings.Join(names, ", "))
}

// A difference is a key that two nodes show in different versions; the zero
// version stands for a key that is not shown.
type difference struct {
	key         string
	left, right client.Version
}

// differences merges the listings of two nodes, which are both in key order.
func differences(ctx context.Context, left, right client.Keyspace) iter.Seq2[difference, error] {
	return func(yield func(difference, error) bool) {
		o := &client.ListOptions{KeysOnly: true}
		nextL, stopL := iter.Pull2(left.List(ctx, "", o))
		defer stopL()
		nextR, stopR := iter.Pull2(right.List(ctx, "", o))
		defer stopR()
		l, errL, okL := nextL()
		r, errR, okR := nextR()
		for okL || okR {
			if errL != nil || errR != nil {
				yield(difference{}, firstError(errL, errR))
				return
			}
			var d difference
			takeL := okL && (!okR || l.Key <= r.Key)
			takeR := okR && (!okL || r.Key <= l.Key)
			if takeL {
				d.key, d.left = l.Key, l.Version
				l, errL, okL = nextL()
			}
			if takeR {
				d.key, d.right = r.Key, r.Version
				r, errR, okR = nextR()
			}
			if d.left != d.right && !yield(d, nil) {
				return
			}
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
