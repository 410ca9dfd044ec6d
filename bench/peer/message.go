package peer

// The operations of a Request.
const (
	OpStart    = "start"    // Nodes begin, and join Join
	OpPut      = "put"      // Count keys at Node
	OpCount    = "count"    // of keys with Prefix, per node
	OpArrivals = "arrivals" // of keys with Prefix, per node
	OpForget   = "forget"   // the arrivals of Prefix
	OpUsage    = "usage"    // of this process and its network namespace
	OpStats    = "stats"    // of the system's own counters, per node
	OpStop     = "stop"     // and end
)

// A NodeSpec is one node to start.
type NodeSpec struct {
	Name string   `json:"name"`
	Addr string   `json:"addr"` // host:port, UDP and TCP
	Join []string `json:"join"`
	Keys int      `json:"keys,omitempty"` // that will come, about: what is noted of them then needs no growing
}

// A Request is what the harness asks for.
type Request struct {
	Op     string     `json:"op"`
	Nodes  []NodeSpec `json:"nodes,omitempty"`
	Node   int        `json:"node,omitempty"` // index among the nodes of this process
	Prefix string     `json:"prefix,omitempty"`
	From   int        `json:"from,omitempty"` // number of the first key
	Count  int        `json:"count,omitempty"`
	Size   int        `json:"size,omitempty"` // of the values, in bytes
	// Every is the time from one put to the next, in nanoseconds; 0 is at once.
	Every int64 `json:"every,omitempty"`
	GC    bool  `json:"gc,omitempty"` // collect garbage before OpUsage
}

// A Seen is what one node has seen.
type Seen struct {
	Node     string           `json:"node"`
	Count    int              `json:"count"`
	Last     int64            `json:"last"`
	Arrivals map[string]int64 `json:"arrivals,omitempty"`
}

// Usage is what the process has used since it began.
type Usage struct {
	CPUNs    int64 `json:"cpu_ns"`
	RSSBytes int64 `json:"rss_bytes"`
	Heap     int64 `json:"heap_bytes"` // live objects, after GC if that was asked for
	NetBytes int64 `json:"net_bytes"`  // received at lo of the network namespace, headers included
}

// A Reply answers one Request.
type Reply struct {
	Error string                      `json:"error,omitempty"`
	Seen  []Seen                      `json:"seen,omitempty"`
	Puts  map[string]int64            `json:"puts,omitempty"` // when the put of each key began
	Took  int64                       `json:"took,omitempty"` // all puts, in nanoseconds
	Usage *Usage                      `json:"usage,omitempty"`
	Stats map[string]map[string]int64 `json:"stats,omitempty"`
}
