package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) poolCommand() *cobra.Command {
	var (
		o     client.AllocateOptions
		token uint64
	)
	cmd := &cobra.Command{
		Use:   "pool KS/POOL define FIRST LAST | alloc | free FIRST --token T | ls | rm",
		Short: "Give out integers and ranges of a pool of a strong keyspace",
		Long: "Give out integers, identifiers or addresses of a pool of a strong keyspace, each to one only. 'define' makes the pool\n" +
			"or changes its bounds, both included; 'alloc' takes a free block and prints its first integer and its token; 'free'\n" +
			"gives it back; 'rm' removes a pool of which all is free. Nothing that fits: exit code 4.",
		Example: "  meshkv pool locks/vni define 4096 8191\n  meshkv pool locks/vni alloc --label net-7\n  meshkv pool locks/vni free 4096 --token 12",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exactArgs("KS/POOL", "COMMAND")(cmd, args)
			}
			names := []string{"KS/POOL", "COMMAND"}
			switch args[1] {
			case "define":
				names = append(names, "FIRST", "LAST")
			case "free":
				names = append(names, "FIRST")
			case "alloc", "ls", "rm":
			default:
				return usagef("%q: the commands of a pool are define, alloc, free, ls and rm", printable(args[1]))
			}
			return exactArgs(names...)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			keyspace, pool, err := parseAddress(args[0])
			if err != nil {
				return err
			}
			if err := checkPoolFlags(cmd, args[1]); err != nil {
				return err
			}
			numbers := make([]uint64, len(args)-2)
			for i, text := range args[2:] {
				if numbers[i], err = strconv.ParseUint(text, 10, 64); err != nil {
					return usagef("%q is no integer from 0 to 2^64-1", printable(text))
				}
			}
			o.Exact = cmd.Flags().Changed("at")
			return a.withStrong(cmd.Context(), keyspace, func(ctx context.Context, s client.Strong) error {
				p := poolCall{a: a, pool: s.Allocator(pool), name: pool}
				if err := p.do(ctx, args[1], numbers, &o, client.FencingToken(token)); err != nil {
					return fmt.Errorf("pool %s: %w", args[1], err)
				}
				return nil
			})
		},
	}
	cmd.Flags().Uint64Var(&o.Size, "size", 1, "of alloc: how many integers")
	cmd.Flags().Uint64Var(&o.Align, "align", 1, "of alloc: what the first must be a multiple of")
	cmd.Flags().Uint64Var(&o.At, "at", 0, "of alloc: the first of the block, and no other")
	cmd.Flags().StringVar(&o.Label, "label", "", "of alloc: shown by ls, at most 1024 bytes")
	cmd.Flags().Uint64Var(&token, "token", 0, "of free: the token that alloc gave")
	return a.clientFlags(cmd)
}

// checkPoolFlags refuses flags of another command of the pool.
func checkPoolFlags(cmd *cobra.Command, verb string) error {
	of := map[string][]string{"alloc": {"size", "align", "at", "label"}, "free": {"token"}}
	for _, v := range sortedKeys(of) {
		for _, name := range of[v] {
			if cmd.Flags().Changed(name) && v != verb {
				return usagef("--%s is for %s", name, v)
			}
		}
	}
	if verb == "free" && !cmd.Flags().Changed("token") {
		return usagef("--token is missing: give the token of the block, so that nobody else's is freed ('pool ls' shows it)")
	}
	return nil
}

type poolCall struct {
	a    *app
	pool client.Allocator
	name string
}

func (p *poolCall) do(ctx context.Context, verb string, numbers []uint64, o *client.AllocateOptions, token client.FencingToken) error {
	switch verb {
	case "define":
		if err := p.pool.Define(ctx, numbers[0], numbers[1]); err != nil {
			return err
		}
		return p.a.printDone(map[string]any{"name": p.name, "first": numbers[0], "last": numbers[1]}, p.name,
			fmt.Sprintf("%s: %d to %d", printable(p.name), numbers[0], numbers[1]))
	case "alloc":
		block, err := p.pool.Allocate(ctx, o)
		if err != nil {
			return err
		}
		return p.a.printDone(block, fmt.Sprintf("%d\t%d", block.First, block.Token), fmt.Sprintf("%s, token %d", blockText(block), block.Token))
	case "free":
		if err := p.pool.Free(ctx, numbers[0], token); err != nil {
			return err
		}
		return p.a.printDone(map[string]any{"name": p.name, "freed": numbers[0]}, strconv.FormatUint(numbers[0], 10),
			fmt.Sprintf("%s: %d is free", printable(p.name), numbers[0]))
	case "rm":
		if err := p.pool.Remove(ctx); err != nil {
			return err
		}
		return p.a.printDone(map[string]any{"name": p.name, "removed": true}, p.name, printable(p.name)+": removed")
	}
	blocks, err := p.pool.List(ctx)
	if err != nil {
		return err
	}
	return p.list(blocks)
}

// blockText is one integer, or FIRST-LAST.
func blockText(b client.Allocation) string {
	if b.Size <= 1 {
		return strconv.FormatUint(b.First, 10)
	}
	return fmt.Sprintf("%d-%d", b.First, b.First+b.Size-1)
}

func (p *poolCall) list(blocks []client.Allocation) error {
	switch p.a.output {
	case formatJSON:
		return p.a.printJSON(struct {
			Name        string              `json:"name"`
			Allocations []client.Allocation `json:"allocations"`
		}{p.name, append([]client.Allocation{}, blocks...)})
	case formatRaw:
		for _, b := range blocks {
			fmt.Fprintf(p.a.stdout, "%d\t%d\t%d\n", b.First, b.Size, b.Token)
		}
		return nil
	}
	t := newTable(p.a.stdout, "BLOCK", "TOKEN", "SESSION", "LABEL")
	for _, b := range blocks {
		session := ""
		if b.Session != 0 {
			session = b.Session.String()
		}
		t.row(blockText(b), strconv.FormatUint(uint64(b.Token), 10), session, b.Label)
	}
	return t.end()
}
