package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/mesh"
	"github.com/meshkv/meshkv/keyspace"
)

// The keyspace _seals holds, for the keyspace of id ID (ADR 0005):
//
//	ID/NODE  what that node found last, bound to its incarnation
//	ID       the newest agreement
//
// Both change only when an incarnation has ended somewhere, so nothing flows
// while all nodes just run.

// sealEvery is how often a node looks at the seals of its keyspaces. A survey
// that is no longer true is withdrawn within that time; who agrees to it
// meanwhile compares it with its own replica.
const sealEvery = 5 * time.Second

// A surveyRecord is a survey as it is published. Numbers are in hex: a digest
// does not fit into a number of JSON.
type surveyRecord struct {
	Inc    hex64 `json:"inc"`
	Digest hex64 `json:"digest"`
	Floor  hex64 `json:"floor"`
}

type agreementRecord struct {
	Digest  hex64 `json:"digest"`
	Horizon hex64 `json:"horizon"`
}

type hex64 uint64

// MarshalText implements encoding.TextMarshaler.
func (h hex64) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(h)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *hex64) UnmarshalText(b []byte) error {
	u, err := strconv.ParseUint(string(b), 16, 64)
	*h = hex64(u)
	return err
}

// A sealer looks at the seals of all keyspaces. It is used by one goroutine.
type sealer struct {
	n     *Node
	byID  map[string]*keyspace.Seals // of what is held
	swept time.Time
}

// seal runs the sealer until ctx ends.
func (n *Node) seal(ctx context.Context) {
	s := &sealer{n: n, byID: make(map[string]*keyspace.Seals)}
	ticker := time.NewTicker(min(sealEvery, n.cfg.SealAfter))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if n.draining.Load() {
				return
			}
			if err := s.step(ctx, now); err != nil && ctx.Err() == nil {
				n.log.Debug("seals not looked at", "err", err) // the next tick does
			}
		}
	}
}

// step looks at every keyspace once.
func (s *sealer) step(ctx context.Context, now time.Time) error {
	surveys, agreed, err := s.read(ctx)
	if err != nil {
		return err
	}
	members := s.n.mesh.Members()
	held := s.n.allHeld()
	ids := make(map[string]bool, len(held))
	for _, h := range held {
		id := h.id.String()
		ids[id] = true
		seals := s.byID[id]
		if seals == nil {
			seals = &keyspace.Seals{SettleAfter: s.n.cfg.SealAfter, RetireAfter: s.n.cfg.RetireAfter}
			s.byID[id] = seals
		}
		v := s.view(h, members)
		v.Surveys, v.Agreed = surveys[id], agreed[id]
		if err := s.carryOut(ctx, now, h, id, seals.Step(now, v), v); err != nil {
			delete(s.byID, id) // begin again: it believes that it has published
			return err
		}
	}
	for id := range s.byID {
		if !ids[id] { // left, or removed
			delete(s.byID, id)
			if err := s.withdraw(ctx, id); err != nil {
				return err
			}
		}
	}
	if now.Sub(s.swept) > time.Minute {
		s.swept = now
		return s.sweep(ctx, agreed)
	}
	return nil
}

// view is what is known of the keyspace of h.
func (s *sealer) view(h *holding, members []mesh.Member) keyspace.SealView {
	n := s.n
	v := keyspace.SealView{
		OwnInc: n.env.Writing(), Decides: h.ks.Chosen(),
		Members: make(map[string]crdt.Inc), Closed: make(map[crdt.Inc]bool),
	}
	// Never as one that is alone: it may have seeds that it has not reached, or
	// find itself in a cluster later.
	v.Own, v.OwnOK = h.ks.Survey(false)
	v.OwnOK = v.OwnOK && !h.leaving.Load() && !h.gone.Load()
	for _, m := range members {
		if m.Name == n.cfg.Name || m.Inc == 0 || m.Status == mesh.StatusLeft || !n.mayHold(h.id.Name, m.Name) {
			continue
		}
		inc := crdt.Inc(m.Inc)
		v.Members[m.Name] = inc
		if n.owners.Get(inc).State == crdt.OwnerClosed {
			v.Closed[inc] = true
		}
	}
	return v
}

// mayHold reports whether a node holds the keyspace, as far as is known. One of
// which nothing is known may.
func (n *Node) mayHold(keyspace, name string) bool {
	if isSystem(keyspace) {
		return true
	}
	for _, p := range n.allPeers() {
		if i := p.theirs.Load(); i != nil && p.link.Peer.Name == name {
			return i.wants(keyspace)
		}
	}
	r, known := n.directory.record(name)
	return !known || r.holds(keyspace)
}

// carryOut does what a step says.
func (s *sealer) carryOut(ctx context.Context, now time.Time, h *holding, id string, out keyspace.SealStep, v keyspace.SealView) error {
	seals := s.n.held(sealsKeyspace).ks
	if out.Withdraw {
		if err := s.withdraw(ctx, id); err != nil {
			return err
		}
	}
	if out.Publish {
		b, err := json.Marshal(surveyRecord{Inc: hex64(v.OwnInc), Digest: hex64(out.Survey.Digest), Floor: hex64(out.Survey.Floor)})
		if err != nil {
			return err
		}
		if _, err := seals.Put(ctx, s.key(id), b, &client.PutOptions{Ephemeral: true}); err != nil {
			return fmt.Errorf("publish a survey: %w", err)
		}
	}
	if out.Record {
		b, err := json.Marshal(agreementRecord{Digest: hex64(out.Agreed.Digest), Horizon: hex64(out.Agreed.Horizon)})
		if err != nil {
			return err
		}
		if _, err := seals.Put(ctx, id, b, nil); err != nil {
			return fmt.Errorf("record an agreement: %w", err)
		}
	}
	if out.Apply && h.ks.Agree(now, v.Agreed) {
		s.n.log.Info("ended incarnations sealed", "keyspace", h.id.Name, "horizon", v.Agreed.Horizon)
	}
	return nil
}

func (s *sealer) key(id string) string { return id + "/" + s.n.cfg.Name }

func (s *sealer) withdraw(ctx context.Context, id string) error {
	if _, err := s.n.held(sealsKeyspace).ks.Delete(ctx, s.key(id), nil); err != nil {
		return fmt.Errorf("withdraw a survey: %w", err)
	}
	return nil
}

// read gives what is published, by keyspace.
func (s *sealer) read(ctx context.Context) (map[string]map[string]keyspace.Published, map[string]crdt.Agreement, error) {
	surveys, agreed := make(map[string]map[string]keyspace.Published), make(map[string]crdt.Agreement)
	for e, err := range s.n.held(sealsKeyspace).ks.List(ctx, "", nil) {
		if err != nil {
			return nil, nil, err
		}
		id, node, survey := strings.Cut(e.Key, "/")
		if !survey {
			var a agreementRecord
			if err := json.Unmarshal(e.Value, &a); err != nil {
				s.n.drops.add("seal_malformed")
				continue
			}
			agreed[id] = crdt.Agreement{Digest: uint64(a.Digest), Horizon: crdt.Inc(a.Horizon)}
			continue
		}
		var r surveyRecord
		if err := json.Unmarshal(e.Value, &r); err != nil {
			s.n.drops.add("seal_malformed")
			continue
		}
		if surveys[id] == nil {
			surveys[id] = make(map[string]keyspace.Published)
		}
		surveys[id][node] = keyspace.Published{Inc: crdt.Inc(r.Inc), Survey: crdt.Survey{Digest: uint64(r.Digest), Floor: crdt.Inc(r.Floor)}}
	}
	return surveys, agreed, nil
}

// sweep takes out agreements about keyspaces that were removed. One member does
// it for all.
func (s *sealer) sweep(ctx context.Context, agreed map[string]crdt.Agreement) error {
	ks := s.n.held(sealsKeyspace).ks
	if !ks.Chosen() {
		return nil
	}
	var obsolete []string
	for text := range agreed {
		id, err := parseKeyspaceID(text)
		if err != nil || isSystem(id.Name) {
			continue
		}
		if l, exists := s.n.catalog.life(id.Name); l.Generation > id.Gen || l.Generation == id.Gen && !exists && l.Removed {
			obsolete = append(obsolete, text)
		}
	}
	slices.Sort(obsolete)
	for _, key := range obsolete {
		if _, err := ks.Delete(ctx, key, nil); err != nil && !errors.Is(err, client.ErrNotFound) {
			return fmt.Errorf("remove an agreement: %w", err)
		}
	}
	return nil
}
