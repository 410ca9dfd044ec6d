package keyspace

import (
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip"
)

const (
	// shownOrigins bounds the origins whose lag is shown.
	shownOrigins = 20
	// allOrigins is more than a replicator keeps.
	allOrigins = 1 << 20
)

// Links describes what waits for each peer.
func (k *Keyspace) Links() []gossip.LinkStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rep.Links()
}

// Stats describes the replication of the keyspace.
func (k *Keyspace) Stats() gossip.Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rep.Stats()
}

// Divergences are the alarms about peers that hold something else.
func (k *Keyspace) Divergences() []gossip.Divergence {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rep.Divergences()
}

// Bytes is the size of keys, paths and values of the live cells.
func (k *Keyspace) Bytes() int64 { return k.index.bytes.Load() }

// Status describes the keyspace for operators.
func (k *Keyspace) Status() client.KeyspaceStatus {
	k.mu.Lock()
	s, links := k.rep.Stats(), k.rep.Links()
	total, origins := k.rep.Lags(allOrigins)
	divergences, filling := k.rep.Divergences(), k.rep.Bootstrap()
	st := client.KeyspaceStatus{
		Name:         k.name,
		Keys:         k.index.keys.Len() - len(k.dark),
		Cells:        k.index.Len(),
		Pending:      s.Pending,
		ClockEntries: s.ClockEntries,
		Rejected:     k.rejected.Load(),
	}
	clock := k.rep.Replica().Clock()
	for _, inc := range clock.Incs() {
		e := clock.Entry(inc)
		if e.Closed {
			st.ClockClosed++
		}
		if e.Sealed {
			st.ClockSealed++
		}
	}
	k.mu.Unlock()

	st.Bytes, st.Watchers, st.OpsIssued = k.Bytes(), int(k.watchers.Load()), k.issued.Load()
	st.OpsApplied, st.OpsDuplicate = uint64(s.OpsReceived-s.OpsDuplicate), uint64(s.OpsDuplicate)
	st.QueuedOps, st.QueuedBytes, st.RecentBytes = s.QueuedOps, s.QueuedBytes, s.RingBytes
	st.LinksBehind, st.SessionsRunning, st.FuseHeld = s.LinksBehind, s.Sessions, s.FuseHeld
	st.SessionsDone, st.SessionsAborted = uint64(s.SessionsDone), uint64(s.SessionsAborted+s.SessionsTimedOut)
	st.SessionSentBytes, st.SessionRecvBytes = uint64(s.SessionBytesSent), uint64(s.SessionBytesReceived)
	for _, l := range links {
		if l.Role != gossip.RoleQuiet {
			st.Neighbours++
		}
		if l.Unequal >= 2 {
			st.Unequal++
		}
	}
	st.Bootstrap = client.BootstrapStatus{Running: filling.Running, Peer: PeerName(filling.Peer), Done: filling.Done, Total: filling.Total}
	st.Scrub = client.ScrubStatus{Runs: uint64(s.Scrubs), Differences: uint64(s.ScrubDifferences)}
	st.Lag = lagStatus(total)
	st.Origins = k.originStatuses(origins)
	for _, d := range divergences {
		st.Divergences = append(st.Divergences, client.DivergenceStatus{
			Peer: PeerName(d.Peer), Since: d.Since, Reason: d.Reason.String(), Keys: differingKeys(d.Differs),
		})
	}
	st.Diverged = len(divergences) > 0
	st.Drops = Drops(s)
	st.Refused, st.Invalid = k.Refused(), k.judged.invalid.Load()
	return st
}

// originStatuses is the first origins of those given, which are in the order in
// which they are to be shown: of two incarnations of one node, that which was
// heard last.
func (k *Keyspace) originStatuses(origins []gossip.OriginLag) []client.OriginStatus {
	newest := make(map[string]time.Time, len(origins))
	for _, o := range origins {
		if name := k.writerName(o.Origin); o.Heard.After(newest[name]) {
			newest[name] = o.Heard
		}
	}
	var out []client.OriginStatus
	for _, o := range origins {
		name := k.writerName(o.Origin)
		heard, ok := newest[name]
		if !ok || !heard.Equal(o.Heard) {
			continue
		}
		delete(newest, name)
		if out = append(out, client.OriginStatus{Name: name, Heard: o.Heard, LagStatus: lagStatus(o.LagSummary)}); len(out) == shownOrigins {
			break
		}
	}
	return out
}

func lagStatus(s gossip.LagSummary) client.LagStatus {
	return client.LagStatus{Count: uint64(s.Recent), P50: s.P50, P99: s.P99}
}

// differingKeys is the keys of a sample, each once.
func differingKeys(all []gossip.Difference) (keys []string) {
	for _, d := range all {
		if d.Key != "" && !slices.Contains(keys, d.Key) {
			keys = append(keys, d.Key)
		}
	}
	return keys
}

// PeerName is the name of the node that a peer is.
func PeerName(id gossip.PeerID) string {
	name, _, _ := strings.Cut(string(id), "/")
	return name
}

// Drops is what was dropped, by reason: the fields of s that begin with Drop,
// found by their names, so that none is forgotten here.
func Drops(s gossip.Stats) map[string]uint64 {
	out := make(map[string]uint64)
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if reason, ok := strings.CutPrefix(v.Type().Field(i).Name, "Drop"); ok {
			out[snake(reason)] = uint64(v.Field(i).Int())
		}
	}
	return out
}

// snake writes a name in the way of labels: IHave as ihave, NoLink as no_link.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		upper := unicode.IsUpper(r)
		if upper && i > 1 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
