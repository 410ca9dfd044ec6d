package wire

// A HistoryCall is the body of a History request.
type HistoryCall struct {
	Keyspace string
	Key      string
	Limit    uint64
	Local    bool
}

const historyFields = 4

// AppendHistory appends h.
func AppendHistory(b []byte, h *HistoryCall) []byte {
	b = AppendArray(b, historyFields)
	b = AppendBin(b, h.Keyspace)
	b = AppendBin(b, h.Key)
	b = AppendUint(b, h.Limit)
	return AppendBool(b, h.Local)
}

// DecodeHistory reads what AppendHistory wrote. Nothing in h refers to body afterwards.
func DecodeHistory(body []byte, h *HistoryCall) error {
	d := NewDecoder(body)
	extra := d.Fields(historyFields)
	*h = HistoryCall{Keyspace: d.Str(), Key: d.Str(), Limit: d.Uint(), Local: d.Bool()}
	d.Skip(extra, 0)
	return d.End()
}

// A SettingsCall is the body of a Settings request.
type SettingsCall struct {
	Keyspace string
	Change   []byte // a client.SettingsChange as JSON; empty: only read. When decoded, part of the body
}

const settingsFields = 2

// AppendSettings appends s.
func AppendSettings(b []byte, s *SettingsCall) []byte {
	b = AppendArray(b, settingsFields)
	b = AppendBin(b, s.Keyspace)
	return AppendBin(b, s.Change)
}

// DecodeSettings reads what AppendSettings wrote.
func DecodeSettings(body []byte, s *SettingsCall) error {
	d := NewDecoder(body)
	extra := d.Fields(settingsFields)
	*s = SettingsCall{Keyspace: d.Str(), Change: d.Bin()}
	d.Skip(extra, 0)
	return d.End()
}
