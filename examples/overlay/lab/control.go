//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/examples/overlay"
	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

// attachment is an endpoint as the control port takes it.
type attachment struct {
	Name string      `json:"name"`
	IP   netip.Addr  `json:"ip"`
	MAC  overlay.MAC `json:"mac"`
}

// control serves what a container runtime would ask of the agent: claim the address
// of a container that moves here, attach, detach, and how it is.
func control(a *overlay.Agent) http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
	mux.HandleFunc("POST /endpoints", func(w http.ResponseWriter, r *http.Request) {
		var at attachment
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&at); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, a.Attach(r.Context(), overlay.Endpoint{Name: at.Name, IP: at.IP, MAC: at.MAC}))
	})
	mux.HandleFunc("POST /claims", func(w http.ResponseWriter, r *http.Request) {
		var ip netip.Addr
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&ip); err != nil || !ip.Is4() {
			http.Error(w, "the body is one IPv4 address", http.StatusBadRequest)
			return
		}
		claim, err := a.Claim(r.Context(), ip)
		if err != nil {
			answer(w, err)
			return
		}
		reply(w, claim)
	})
	mux.HandleFunc("GET /claims", func(w http.ResponseWriter, _ *http.Request) { reply(w, a.Claims()) })
	mux.HandleFunc("DELETE /endpoints", func(w http.ResponseWriter, r *http.Request) {
		answer(w, a.Detach(r.Context(), r.URL.Query().Get("key")))
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) { reply(w, a.Report()) })
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// A host talks to one host's agent and node from inside its namespace.
type host struct {
	Host
	ns   netlab.Namespace
	http *http.Client
}

func (s *State) open(h Host) host {
	ns := s.namespace(h.Name)
	// Connections are not kept: every command is short.
	transport := &http.Transport{DialContext: ns.DialContext, DisableKeepAlives: true}
	return host{h, ns, &http.Client{Transport: transport, Timeout: 5 * time.Second}}
}

func (h host) call(ctx context.Context, method string, port int, path string, body, into any) error {
	err := h.do(ctx, method, port, path, body, func(r io.Reader) error {
		if into == nil {
			return nil
		}
		return json.NewDecoder(r).Decode(into)
	})
	if err != nil {
		return fmt.Errorf("host %s: %w", h.Name, err)
	}
	return nil
}

func (h host) do(ctx context.Context, method string, port int, path string, body any, read func(io.Reader) error) error {
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), sent)
	if err != nil {
		return err
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	return read(resp.Body)
}

// report asks the agent how it is.
func (h host) report(ctx context.Context) (overlay.Report, error) {
	var r overlay.Report
	err := h.call(ctx, "GET", ControlPort, "/report", nil, &r)
	return r, err
}

// awaitLease waits until the agent leases addresses.
func (h host) awaitLease(ctx context.Context, within time.Duration) (overlay.Claim, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := h.report(ctx)
		if err == nil && r.Lease.Token > 0 {
			return r.Lease, nil
		}
		select {
		case <-ctx.Done():
			return overlay.Claim{}, errors.Join(fmt.Errorf("host %s has no lease after %v", h.Name, within), err)
		case <-tick.C:
		}
	}
}

// attach tells the agent of a container.
func (h host) attach(ctx context.Context, c Container) error {
	return h.call(ctx, "POST", ControlPort, "/endpoints", attachment{Name: c.Name, IP: c.IP, MAC: c.MAC}, nil)
}

// members asks the node whom it sees, by name.
func (h host) members(ctx context.Context) (map[string]string, error) {
	var list struct {
		Members []struct{ Name, Status string }
	}
	if err := h.call(ctx, "GET", APIPort, "/v1/members", nil, &list); err != nil {
		return nil, err
	}
	status := map[string]string{}
	for _, m := range list.Members {
		status[m.Name] = m.Status
	}
	return status, nil
}

// digest asks the node for the digest of a keyspace.
func (h host) digest(ctx context.Context, keyspace string) (string, error) {
	var d struct{ Digest string }
	err := h.call(ctx, "GET", APIPort, "/v1/digest/"+keyspace, nil, &d)
	return d.Digest, err
}

// records reads a keyspace of the node.
func records[T any](ctx context.Context, h host, keyspace string, decode func(client.Entry) (T, error)) (found []T, err error) {
	err = h.do(ctx, "GET", APIPort, "/v1/keys/"+keyspace+"?values=true&consistency=local", nil, func(r io.Reader) (err error) {
		found, err = readRecords(r, decode)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("host %s: list %s: %w", h.Name, keyspace, err)
	}
	return found, nil
}

// readRecords reads a list of entries, of whatever length their lines are. A
// record that does not decode is left out, as an agent leaves it out.
func readRecords[T any](r io.Reader, decode func(client.Entry) (T, error)) (found []T, err error) {
	entries := json.NewDecoder(r)
	for {
		var e struct {
			Key      string
			KeyB64   []byte `json:"key_b64"`
			Value    []byte
			Modified time.Time
			Error    json.RawMessage
		}
		switch err := entries.Decode(&e); {
		case err == io.EOF:
			return found, nil
		case err != nil:
			return nil, err
		case e.Error != nil:
			return nil, errors.New(string(e.Error))
		}
		if e.KeyB64 != nil {
			e.Key = string(e.KeyB64)
		}
		if rec, err := decode(client.Entry{Key: e.Key, Value: e.Value, Modified: e.Modified}); err == nil {
			found = append(found, rec)
		}
	}
}

// kernel reads what the host's VXLAN device holds, without the agent.
func (h host) kernel() (overlay.Tables, error) {
	nl, err := h.ns.Handle()
	if err != nil {
		return overlay.Tables{}, err
	}
	defer nl.Close()
	dev, err := overlay.OpenDevice(nl, vxlanLink)
	if err != nil {
		return overlay.Tables{}, fmt.Errorf("host %s: %w", h.Name, err)
	}
	return dev.Tables()
}

// store decides from the host's store, without the agent, what its kernel should hold.
// A host that is no server and reaches none cannot read whose addresses are whose: cut
// is why, and the claims are those that its agent saw last.
func (h host) store(ctx context.Context, server bool) (want overlay.Tables, cut, err error) {
	var r overlay.Records
	if r.Nodes, err = records(ctx, h, overlay.NodesKeyspace, overlay.DecodeNode); err != nil {
		return want, nil, err
	}
	if r.Endpoints, err = records(ctx, h, overlay.EndpointsKeyspace, overlay.DecodeEndpoint); err != nil {
		return want, nil, err
	}
	r.Claims, err = records(ctx, h, overlay.IPAMKeyspace, overlay.DecodeClaim)
	if err != nil && !server {
		cut = err
		err = h.call(ctx, "GET", ControlPort, "/claims", nil, &r.Claims)
	}
	want, _ = overlay.Desired(h.Name, VNI, r, nil)
	return want, cut, err
}

// leases reads the allocations of the pool and then the claims, by the host's node.
func (h host) leases(ctx context.Context) ([]client.Allocation, []overlay.Claim, error) {
	c, err := client.Dial(ctx, h.Name, &client.DialOptions{Dialer: func(ctx context.Context) (net.Conn, error) {
		return h.ns.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", APIPort))
	}})
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	strong, err := c.Strong(ctx, overlay.IPAMKeyspace)
	if err != nil {
		return nil, nil, err
	}
	blocks, err := (&overlay.IPAM{Strong: strong}).Allocations(ctx)
	if err != nil {
		return nil, nil, err
	}
	var claims []overlay.Claim
	for e, err := range strong.List(ctx, "", nil) {
		if err != nil {
			return nil, nil, err
		}
		claim, err := overlay.DecodeClaim(e)
		if err != nil {
			return nil, nil, err
		}
		claims = append(claims, claim)
	}
	return blocks, claims, nil
}
