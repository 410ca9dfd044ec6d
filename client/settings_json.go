package client

import "time"

// MarshalJSON is the history of the HTTP API.
func (h History) MarshalJSON() ([]byte, error) {
	type event struct {
		Type     HistoryType `json:"type"`
		Version  string      `json:"version,omitempty"`
		Origin   string      `json:"origin,omitempty"`
		Modified *time.Time  `json:"modified,omitempty"`
		Arrived  *time.Time  `json:"arrived,omitempty"`
		Lag      *float64    `json:"lag_ms,omitempty"`
		Removes  []string    `json:"removes,omitempty"`
		Shown    bool        `json:"shown"`
		Bytes    int         `json:"bytes,omitempty"`
		Value    *[]byte     `json:"value,omitempty"`
	}
	events := make([]event, len(h.Events))
	for i, e := range h.Events {
		out := event{
			Type: e.Type, Version: e.Version.String(), Origin: e.Origin, Modified: timeJSON(e.Modified), Arrived: timeJSON(e.Arrived),
			Shown: e.Shown, Bytes: e.Bytes,
		}
		if out.Modified != nil && out.Arrived != nil {
			lag := milliseconds(e.Lag())
			out.Lag = &lag
		}
		for _, v := range e.Removes {
			out.Removes = append(out.Removes, v.String())
		}
		if e.Value != nil {
			out.Value = &e.Value
		}
		events[i] = out
	}
	return marshalPlain(struct {
		Keyspace string `json:"keyspace"`
		keyJSON
		Node     string     `json:"node"`
		Since    time.Time  `json:"since"`
		OpsSince *time.Time `json:"ops_since,omitempty"`
		Events   []event    `json:"events"`
		More     bool       `json:"more,omitempty"`
	}{h.Keyspace, keyOf(h.Key), h.Node, h.Since.UTC(), timeJSON(h.OpsSince), events, h.More})
}
