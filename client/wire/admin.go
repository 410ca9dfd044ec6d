package wire

// An AdminOp says what an AdminCall asks for. Append only.
type AdminOp uint8

// What operators do with strong keyspaces; see client.StrongAdmin.
const (
	CreateKeyspace AdminOp = iota + 1 // Keyspace, Mode, Voters, Quota
	RemoveKeyspace                    // Keyspace
	DescribeStrong                    // Keyspace
	AddVoter                          // Keyspace, Server
	RemoveVoter                       // Keyspace, Server
	Decommission                      // Server
	Recover                           // Keyspace, Server: the survivor
)

// An AdminCall is the body of an Admin request.
type AdminCall struct {
	Op       AdminOp
	Keyspace string
	Server   string
	Mode     string
	Voters   uint64
	Quota    uint64
}

const adminFields = 6

// AppendAdmin appends a.
func AppendAdmin(b []byte, a *AdminCall) []byte {
	b = AppendArray(b, adminFields)
	b = AppendUint(b, uint64(a.Op))
	b = AppendBin(b, a.Keyspace)
	b = AppendBin(b, a.Server)
	b = AppendBin(b, a.Mode)
	b = AppendUint(b, a.Voters)
	return AppendUint(b, a.Quota)
}

// DecodeAdmin reads what AppendAdmin wrote. Nothing in a refers to body afterwards.
func DecodeAdmin(body []byte, a *AdminCall) error {
	d := NewDecoder(body)
	extra := d.Fields(adminFields)
	*a = AdminCall{
		Op: AdminOp(min(d.Uint(), 255)), Keyspace: d.Str(), Server: d.Str(), Mode: d.Str(), Voters: d.Uint(), Quota: d.Uint(),
	}
	d.Skip(extra, 0)
	return d.End()
}
