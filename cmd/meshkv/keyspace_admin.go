package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

// keyspaceAdminCommands change which keyspaces there are, and where.
func (a *app) keyspaceAdminCommands() []*cobra.Command {
	var force bool
	remove := &cobra.Command{
		Use:   "rm KS",
		Short: "Remove a keyspace at every node, for good",
		Args:  exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeKeyspace(cmd.Context(), http.MethodDelete, args[0], "", "removed")
		},
	}
	join := &cobra.Command{
		Use:   "join KS",
		Short: "Make the asked node hold a keyspace from now on",
		Args:  exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeKeyspace(cmd.Context(), http.MethodPost, args[0], `{"join":true}`, "joined")
		},
	}
	leave := &cobra.Command{
		Use:   "leave KS [--force]",
		Short: "Make the asked node hold a keyspace no longer, once a member has all of it",
		Args:  exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeKeyspace(cmd.Context(), http.MethodPost, args[0], fmt.Sprintf(`{"leave":true,"force":%v}`, force), "left")
		},
	}
	leave.Flags().BoolVar(&force, "force", false, "even if nobody else has all of it")
	var during time.Duration
	allow := &cobra.Command{
		Use:   "allow-drops KS [--for D]",
		Short: "Let reconciliation drop any number of values at the asked node, for a while",
		Long: "A reconciliation that would drop very many values at once waits for a second verdict (see the warnings of\n" +
			"'meshkv status'). Where that is right, this lets it pass at the asked node for a while.",
		Args: exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeKeyspace(cmd.Context(), http.MethodPost, args[0], fmt.Sprintf(`{"allow_drops":%q}`, during), "drops_allowed")
		},
	}
	allow.Flags().DurationVar(&during, "for", time.Minute, "for this long, at most an hour")
	return []*cobra.Command{a.clientFlags(remove), a.clientFlags(join), a.clientFlags(leave), a.clientFlags(allow)}
}

// changeKeyspace makes one call of the HTTP API, which alone has these.
func (a *app) changeKeyspace(ctx context.Context, method, name, body, done string) error {
	if err := checkKeyspace(name); err != nil {
		return err
	}
	host, err := apiHost(a.addr)
	if err != nil {
		return err
	}
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+"/v1/keyspaces/"+url.PathEscape(name), strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w: keyspace %s: %w", client.ErrUnavailable, name, err)
	}
	defer resp.Body.Close()
	var answer struct {
		Error struct{ Code, Message string }
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<16)).Decode(&answer); err != nil {
		return fmt.Errorf("keyspace %s: answer of the node: %w", name, err)
	}
	if resp.StatusCode != http.StatusOK {
		switch answer.Error.Code {
		case "not_found":
			return told(client.ErrNotFound, answer.Error.Message)
		case "denied":
			return told(client.ErrDenied, answer.Error.Message)
		case "unavailable", "joining", "draining", "no_quorum":
			return told(client.ErrUnavailable, answer.Error.Message)
		}
		return fmt.Errorf("keyspace %s: %s", name, answer.Error.Message)
	}
	switch a.output {
	case formatJSON:
		return a.printJSON(map[string]any{"name": name, done: true})
	case formatRaw:
		_, err = fmt.Fprintln(a.stdout, name)
	default:
		_, err = fmt.Fprintf(a.stdout, "%s: %s\n", name, done)
	}
	return err
}

// told is err with the node's message, which may say the same already.
func told(err error, message string) error {
	message = strings.TrimPrefix(message, err.Error()+": ")
	return fmt.Errorf("%w: %s", err, strings.TrimSuffix(message, ": "+err.Error()))
}
