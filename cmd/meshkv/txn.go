package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node/api"
)

// maxTxnInput bounds what is read from stdin: more than a node takes.
const maxTxnInput = 4 << 20

func (a *app) txnCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "txn KS < ops.json",
		Short: "Carry out a transaction in a strong keyspace",
		Long: "Read a transaction from stdin, as POST /v1/txn takes it, and carry it out in a strong keyspace: 'then' if all compares\n" +
			"hold, 'else' if not, at one moment and as a whole. Exit code 4 if they did not hold, whatever 'else' did.",
		Example: "  echo '{\"compare\":[{\"key\":\"a\",\"target\":\"version\",\"op\":\"=\",\"value\":0}],\n" +
			"         \"then\":[{\"put\":{\"key\":\"a\",\"value\":\"1\"}},{\"get\":{\"key\":\"b\"}}]}' | meshkv txn locks",
		Args: exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkKeyspace(args[0]); err != nil {
				return err
			}
			if isTerminal(a.stdin) {
				return usagef("the transaction is read from stdin: meshkv txn %s < ops.json", args[0])
			}
			text, err := io.ReadAll(io.LimitReader(a.stdin, maxTxnInput+1))
			switch {
			case err != nil:
				return fmt.Errorf("read the transaction from stdin: %w", err)
			case len(text) > maxTxnInput:
				return fmt.Errorf("transaction on stdin exceeds %d bytes: %w", maxTxnInput, client.ErrTooLarge)
			}
			txn, err := api.ParseTxn(bytes.NewReader(text))
			if err != nil {
				return fmt.Errorf("txn: %w", err)
			}
			return a.withStrong(cmd.Context(), args[0], func(ctx context.Context, s client.Strong) error {
				r, err := s.Txn(ctx, txn)
				if err != nil {
					return fmt.Errorf("txn: %w", err)
				}
				return a.printTxn(txn, r)
			})
		},
	}
	return a.clientFlags(cmd)
}

func (a *app) printTxn(txn *client.Txn, r client.TxnResult) error {
	err := a.buffered(func(w *bufio.Writer) error {
		switch a.output {
		case formatJSON:
			return writeJSON(w, r)
		case formatRaw:
			return eachEntry(r, func(e client.StrongEntry) error {
				_, err := fmt.Fprintf(w, "%s\t%s\n", printable(e.Key), printable(string(e.Value)))
				return err
			})
		}
		fmt.Fprintf(w, "%s, revision %d\n", verdict(txn, r.Succeeded), r.Revision)
		var t *table
		err := eachEntry(r, func(e client.StrongEntry) error {
			if t == nil {
				t = newTable(w, "KEY", "VALUE", "VERSION", "MODIFIED")
			}
			t.row(e.Key, shorten(e.Value), client.Version{Seq: e.Mod}.String(), stamp(modified(e)))
			return nil
		})
		if err != nil || t == nil {
			return err
		}
		return t.end()
	})
	if err == nil && !r.Succeeded {
		err = &failure{text: "txn: " + verdict(txn, false), cause: client.ErrConflict}
	}
	return err
}

func verdict(txn *client.Txn, succeeded bool) string {
	switch {
	case succeeded:
		return "done"
	case len(txn.Else) > 0:
		return "the conditions did not hold: else was done"
	}
	return "the conditions did not hold: nothing was done"
}

// eachEntry visits what the operations read, nested ones included, in their order.
func eachEntry(r client.TxnResult, visit func(client.StrongEntry) error) error {
	for _, op := range r.Results {
		for _, e := range op.Entries {
			if err := visit(e); err != nil {
				return err
			}
		}
		if op.Txn != nil {
			if err := eachEntry(*op.Txn, visit); err != nil {
				return err
			}
		}
	}
	return nil
}
