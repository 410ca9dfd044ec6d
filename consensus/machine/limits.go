package machine

// Limits. They are part of what replicas must agree on, so they are no options.
const (
	// MaxKey bounds keys and the names of locks and pools, in bytes.
	MaxKey = 1024
	// MaxValue bounds a value, in bytes.
	MaxValue = 1 << 20
	// MaxCommand bounds an encoded command, in bytes: a value and what goes with it.
	MaxCommand = MaxValue + 16<<10
	// MaxTxnOps bounds compares and operations of a transaction, nested ones included.
	MaxTxnOps = 4096
	// MaxTxnDepth bounds the nesting of transactions; one without nested ones has 1.
	MaxTxnDepth = 4
	// MaxResult bounds the keys and values that one transaction returns, in bytes.
	MaxResult = 4 << 20
	// MaxVisited bounds the entries that the reads and compares of one transaction
	// look at.
	MaxVisited = 1 << 20
	// DefaultQuota bounds live data and history of a new keyspace, in bytes.
	DefaultQuota = 2 << 30
	// MinTTL and MaxTTL bound the TTL of a lease, in milliseconds.
	MinTTL, MaxTTL = 1000, 24 * 3600 * 1000
	// MaxExpired bounds the leases that one Expire ends.
	MaxExpired = 1024
	// MaxWaiters bounds the queue of one lock.
	MaxWaiters = 16384
	// MaxLabel bounds the label of an allocation, in bytes.
	MaxLabel = 1024
	// MaxClientID bounds the id of a client, in bytes.
	MaxClientID = 64
	// RequestWindow bounds the results that are kept of one client.
	RequestWindow = 128
	// MaxClients bounds the clients whose results are kept.
	MaxClients = 8192
	// MaxRecorded bounds all results that are kept, in bytes.
	MaxRecorded = 16 << 20
)

// What one thing counts against the quota besides its keys and values, in bytes:
// about what it takes in memory.
const (
	entryCost      = 128
	changeCost     = 80
	leaseCost      = 64
	claimCost      = 256
	poolCost       = 128
	allocationCost = 192
)
