package client

import "time"

// MarshalJSON is the status of the HTTP API.
func (s Status) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Name      string               `json:"name"`
		Inc       string               `json:"inc"`
		Version   string               `json:"version"`
		MeshAddr  string               `json:"mesh_addr"`
		APIAddr   string               `json:"api_addr"`
		Uptime    float64              `json:"uptime_seconds"`
		Ready     bool                 `json:"ready"`
		NotReady  []string             `json:"not_ready"`
		Members   map[MemberStatus]int `json:"members"`
		Links     []LinkStatus         `json:"links"`
		Keyspaces []KeyspaceStatus     `json:"keyspaces"`
		Strong    []StrongStatus       `json:"strong"`
		Storage   StorageStatus        `json:"storage"`
		Clock     ClockStatus          `json:"clock"`
		Drops     map[string]uint64    `json:"drops"`
		Warnings  []string             `json:"warnings"`
	}{
		s.Name, s.Inc, s.Version, s.MeshAddr, s.APIAddr, s.Uptime.Seconds(), s.Ready, list(s.NotReady),
		dict(s.Members), list(s.Links), list(s.Keyspaces), list(s.Strong), s.Storage, s.Clock, dict(s.Drops), list(s.Warnings),
	})
}

// MarshalJSON is a link in the status of the HTTP API.
func (l LinkStatus) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Peer        string         `json:"peer"`
		Addr        string         `json:"addr"`
		RTT         float64        `json:"rtt_ms"`
		SentBytes   uint64         `json:"sent_bytes"`
		RecvBytes   uint64         `json:"recv_bytes"`
		Queued      int            `json:"queued"`
		QueuedBytes int            `json:"queued_bytes"`
		Roles       map[string]int `json:"roles"`
		InSync      int            `json:"in_sync"`
		Behind      int            `json:"behind"`
		Sessions    int            `json:"sessions"`
	}{l.Peer, l.Addr, milliseconds(l.RTT), l.SentBytes, l.RecvBytes, l.Queued, l.QueuedBytes, dict(l.Roles), l.InSync, l.Behind, l.Sessions})
}

// MarshalJSON is a keyspace in the status of the HTTP API.
func (k KeyspaceStatus) MarshalJSON() ([]byte, error) {
	k.Origins, k.Divergences, k.Drops = list(k.Origins), list(k.Divergences), dict(k.Drops)
	return marshalPlain(struct {
		Name             string             `json:"name"`
		Keys             int                `json:"keys"`
		Cells            int                `json:"cells"`
		Bytes            int64              `json:"bytes"`
		Pending          int                `json:"pending"`
		ClockEntries     int                `json:"clock_entries"`
		ClockClosed      int                `json:"clock_closed"`
		ClockSealed      int                `json:"clock_sealed"`
		Rejected         uint64             `json:"rejected"`
		Watchers         int                `json:"watchers"`
		OpsIssued        uint64             `json:"ops_issued"`
		OpsApplied       uint64             `json:"ops_applied"`
		OpsDuplicate     uint64             `json:"ops_duplicate"`
		QueuedOps        int                `json:"queued_ops"`
		QueuedBytes      int                `json:"queued_bytes"`
		RecentBytes      int                `json:"recent_bytes"`
		Neighbours       int                `json:"neighbours"`
		LinksBehind      int                `json:"links_behind"`
		Unequal          int                `json:"unequal"`
		SessionsRunning  int                `json:"sessions_running"`
		SessionsDone     uint64             `json:"sessions_done"`
		SessionsAborted  uint64             `json:"sessions_aborted"`
		SessionSentBytes uint64             `json:"session_sent_bytes"`
		SessionRecvBytes uint64             `json:"session_recv_bytes"`
		FuseHeld         int                `json:"fuse_held"`
		Bootstrap        BootstrapStatus    `json:"bootstrap"`
		Scrub            ScrubStatus        `json:"scrub"`
		Lag              LagStatus          `json:"lag"`
		Origins          []OriginStatus     `json:"origins"`
		Diverged         bool               `json:"diverged"`
		Divergences      []DivergenceStatus `json:"divergences"`
		Drops            map[string]uint64  `json:"drops"`
		Refused          map[string]uint64  `json:"refused"`
		Invalid          uint64             `json:"invalid"`
	}(k))
}

// MarshalJSON is a strong keyspace in the status of the HTTP API.
func (s StrongStatus) MarshalJSON() ([]byte, error) {
	var age *float64
	if s.Age >= 0 {
		seconds := s.Age.Seconds()
		age = &seconds
	}
	return marshalPlain(struct {
		Name     string   `json:"name"`
		Role     string   `json:"role"`
		Leader   string   `json:"leader,omitempty"`
		Revision uint64   `json:"revision"`
		Behind   uint64   `json:"behind"`
		Age      *float64 `json:"age_seconds"`
	}{s.Name, s.Role, s.Leader, s.Revision, s.Behind, age})
}

// MarshalJSON is a bootstrap in the status of the HTTP API.
func (b BootstrapStatus) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Running bool   `json:"running"`
		Peer    string `json:"peer,omitempty"`
		Done    int    `json:"done"`
		Total   int    `json:"total"`
	}(b))
}

// MarshalJSON is the scrub in the status of the HTTP API.
func (s ScrubStatus) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Runs        uint64 `json:"runs"`
		Differences uint64 `json:"differences"`
	}(s))
}

// MarshalJSON is a lag in the status of the HTTP API.
func (l LagStatus) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Count uint64  `json:"count"`
		P50   float64 `json:"p50_ms"`
		P99   float64 `json:"p99_ms"`
	}{l.Count, milliseconds(l.P50), milliseconds(l.P99)})
}

// MarshalJSON is an origin in the status of the HTTP API.
func (o OriginStatus) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Name  string     `json:"name"`
		Heard *time.Time `json:"heard,omitempty"`
		Count uint64     `json:"count"`
		P50   float64    `json:"p50_ms"`
		P99   float64    `json:"p99_ms"`
	}{o.Name, timeJSON(o.Heard), o.Count, milliseconds(o.P50), milliseconds(o.P99)})
}

// MarshalJSON is an alarm in the status of the HTTP API.
func (d DivergenceStatus) MarshalJSON() ([]byte, error) {
	keys := make([]keyJSON, 0, len(d.Keys))
	for _, key := range d.Keys {
		keys = append(keys, keyOf(key))
	}
	return marshalPlain(struct {
		Peer   string     `json:"peer"`
		Since  *time.Time `json:"since,omitempty"`
		Reason string     `json:"reason"`
		Keys   []keyJSON  `json:"sample"`
	}{d.Peer, timeJSON(d.Since), d.Reason, keys})
}

// MarshalJSON is the clock in the status of the HTTP API.
func (c ClockStatus) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Offset     float64 `json:"offset_ms"`
		Neighbours int     `json:"neighbours"`
	}{milliseconds(c.Offset), c.Neighbours})
}

// MarshalJSON is the storage in the status of the HTTP API.
func (s StorageStatus) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Path     string  `json:"path"`
		Bytes    int64   `json:"bytes"`
		Lag      float64 `json:"lag_seconds"`
		LogBytes int64   `json:"log_bytes"`
		Commits  uint64  `json:"commits"`
		Backlog  int64   `json:"backlog_bytes"`
	}{s.Path, s.Bytes, s.Lag.Seconds(), s.LogBytes, s.Commits, s.Backlog})
}
