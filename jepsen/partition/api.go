//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

const (
	keyspaceName = "partition"
	apiPort      = 7951
	meshPort     = 7950
	callTimeout  = 5 * time.Second
)

// An api is the HTTP API of one node, reached over the node's own loopback:
// clients are on the node's side of every partition.
type api struct {
	name string
	http *http.Client
}

func newAPI(name string, ns netlab.Namespace) *api {
	return &api{name, &http.Client{
		Transport: &http.Transport{DialContext: ns.DialContext, MaxIdleConnsPerHost: 16},
		Timeout:   callTimeout,
	}}
}

// A statusError is an answer that is not 200.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d %s", e.status, e.text) }

func isNotFound(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.status == http.StatusNotFound
}

// writeOutcome classifies the end of a write. Whatever did not come from the
// node, and a 504, may have been applied.
func writeOutcome(err error) outcome {
	var s *statusError
	switch {
	case err == nil:
		return ok
	case errors.As(err, &s) && s.status != http.StatusGatewayTimeout && s.status != http.StatusInternalServerError:
		return failed
	}
	return unknown
}

func (a *api) do(ctx context.Context, method, path string, body string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", apiPort, path), strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	defer io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // lets the connection be used again
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return &statusError{resp.StatusCode, strings.TrimSpace(string(text))}
	}
	return read(resp.Body)
}

func ignore(io.Reader) error { return nil }

func keyPath(key string) string { return "/v1/kv/" + keyspaceName + "/" + url.PathEscape(key) }

func (a *api) put(ctx context.Context, key, value string) error {
	return a.do(ctx, "PUT", keyPath(key), value, ignore)
}

func (a *api) delete(ctx context.Context, key string) error {
	return a.do(ctx, "DELETE", keyPath(key), "", ignore)
}

// get returns the value, or "" if there is none.
func (a *api) get(ctx context.Context, key string) (string, error) {
	var value []byte
	err := a.do(ctx, "GET", keyPath(key), "", func(r io.Reader) (err error) {
		value, err = io.ReadAll(r)
		return err
	})
	if isNotFound(err) {
		return "", nil
	}
	return string(value), err
}

// list returns every key with its value.
func (a *api) list(ctx context.Context) (map[string]string, error) { return a.listPrefix(ctx, "") }

// listPrefix returns the keys under prefix with their values.
func (a *api) listPrefix(ctx context.Context, prefix string) (map[string]string, error) {
	shown := map[string]string{}
	err := a.do(ctx, "GET", "/v1/keys/"+keyspaceName+"?values=true&prefix="+url.QueryEscape(prefix), "", func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			var e struct {
				Key   string
				Value []byte
				Error json.RawMessage
			}
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return err
			}
			if e.Error != nil {
				return fmt.Errorf("list: %s", e.Error)
			}
			if _, twice := shown[e.Key]; twice {
				return fmt.Errorf("list: key %q twice", e.Key)
			}
			shown[e.Key] = string(e.Value)
		}
		return lines.Err()
	})
	return shown, err
}

type digest struct{ Digest, Clock string }

func (a *api) digest(ctx context.Context) (digest, error) {
	var d digest
	err := a.do(ctx, "GET", "/v1/digest/"+keyspaceName, "", func(r io.Reader) error { return json.NewDecoder(r).Decode(&d) })
	if err == nil && d.Digest == "" {
		err = errors.New("the answer has no digest")
	}
	return d, err
}

// members returns the status of every member as the node sees it.
func (a *api) members(ctx context.Context) (map[string]string, error) {
	var list struct {
		Members []struct{ Name, Status string }
	}
	err := a.do(ctx, "GET", "/v1/members", "", func(r io.Reader) error { return json.NewDecoder(r).Decode(&list) })
	status := map[string]string{}
	for _, m := range list.Members {
		status[m.Name] = m.Status
	}
	return status, err
}

// alive counts the members that the node takes for alive, itself included.
func (a *api) alive(ctx context.Context) (int, error) {
	status, err := a.members(ctx)
	n := 0
	for _, s := range status {
		if s == "alive" {
			n++
		}
	}
	return n, err
}

// repair counts what a node took from others in the keyspace.
type repair struct{ Ops, Sessions int64 }

func (r repair) minus(s repair) repair { return repair{r.Ops - s.Ops, r.Sessions - s.Sessions} }

func (a *api) repair(ctx context.Context) (repair, error) {
	var st struct {
		Keyspaces []struct {
			Name         string
			OpsApplied   int64 `json:"ops_applied"`
			SessionsDone int64 `json:"sessions_done"`
		}
	}
	err := a.do(ctx, "GET", "/v1/status", "", func(r io.Reader) error { return json.NewDecoder(r).Decode(&st) })
	if err != nil {
		return repair{}, err
	}
	for _, k := range st.Keyspaces {
		if k.Name == keyspaceName {
			return repair{k.OpsApplied, k.SessionsDone}, nil
		}
	}
	return repair{}, fmt.Errorf("status: no keyspace %s", keyspaceName)
}
