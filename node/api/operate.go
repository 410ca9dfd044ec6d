package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/wire"
)

func (s *Server) keyspaceOperator() (client.KeyspaceOperator, error) {
	if s.operator == nil {
		return nil, fmt.Errorf("%w: this node has no settings and no history of keyspaces", client.ErrBadRequest)
	}
	return s.operator, nil
}

// getHistory tells what happened to a key.
func (s *Server) getHistory(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	o := client.HistoryOptions{Limit: q.count("limit"), Local: q.bool("local")}
	if err := q.finish(); err != nil {
		return err
	}
	op, err := s.keyspaceOperator()
	if err != nil {
		return err
	}
	h, err := op.History(ctx, c.keyspace, c.key, &o)
	if err != nil {
		return err
	}
	return writeJSON(w, h)
}

func (s *Server) executeHistory(ctx context.Context, body []byte, reply *wire.Reply) error {
	op, err := s.keyspaceOperator()
	if err != nil {
		return err
	}
	var call wire.HistoryCall
	if err := wire.DecodeHistory(body, &call); err != nil {
		return fmt.Errorf("%w: %w", client.ErrBadRequest, err)
	}
	h, err := op.History(ctx, call.Keyspace, call.Key, &client.HistoryOptions{Limit: int(min(call.Limit, client.MaxHistory)), Local: call.Local})
	return document(reply, h, err)
}

func (s *Server) getSettings(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	return s.answerSettings(ctx, w, c.keyspace, nil)
}

// maxSettingsBody is room for a schema whose every byte is escaped.
const maxSettingsBody = 6*client.MaxSchema + 4<<10

// postSettings changes what the body names: {"frozen":true,"max_value":1024,"schema":{…}}.
func (s *Server) postSettings(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxSettingsBody+1))
	switch {
	case err != nil:
		return fmt.Errorf("%w: the settings did not arrive whole", client.ErrTimeout)
	case len(body) > maxSettingsBody:
		return fmt.Errorf("%w: settings of more than %d bytes", client.ErrTooLarge, maxSettingsBody)
	}
	return s.answerSettings(ctx, w, c.keyspace, body)
}

func (s *Server) answerSettings(ctx context.Context, w http.ResponseWriter, keyspace string, change []byte) error {
	settings, err := s.changeSettings(ctx, keyspace, change)
	if err != nil {
		return err
	}
	return writeJSON(w, settings)
}

func (s *Server) executeSettings(ctx context.Context, body []byte, reply *wire.Reply) error {
	var call wire.SettingsCall
	if err := wire.DecodeSettings(body, &call); err != nil {
		return fmt.Errorf("%w: %w", client.ErrBadRequest, err)
	}
	settings, err := s.changeSettings(ctx, call.Keyspace, call.Change)
	return document(reply, settings, err)
}

// changeSettings carries out a change, or only reads if it is empty.
func (s *Server) changeSettings(ctx context.Context, keyspace string, text []byte) (client.KeyspaceSettings, error) {
	op, err := s.keyspaceOperator()
	if err != nil {
		return client.KeyspaceSettings{}, err
	}
	if len(text) == 0 {
		return op.Settings(ctx, keyspace)
	}
	var change client.SettingsChange
	if err := json.Unmarshal(text, &change); err != nil {
		return client.KeyspaceSettings{}, fmt.Errorf("%w: settings are frozen, max_value, max_keys, max_bytes, rate and schema: %w", client.ErrBadRequest, err)
	}
	settings, err := op.ChangeSettings(ctx, keyspace, change)
	return settings, writeFailure(err)
}
