package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/meshkv/meshkv/client"
)

// A collector shows a node's counts at /metrics. It reads them when asked, so
// that nothing is counted twice.
type collector struct {
	n *Node

	keys, cells, cellBytes, clockEntries, pending, watchers *prometheus.Desc
	opsIssued, opsReceived, opsDuplicate, opsCoalesced      *prometheus.Desc
	lag, sessions, sessionBytes, cellsDropped               *prometheus.Desc
	links, linkBytes, queued, members                       *prometheus.Desc
	storeBytes, storeBacklog, storeLag, storeCommits        *prometheus.Desc
	drops, clockAhead                                       *prometheus.Desc
}

func newCollector(n *Node) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("meshkv_"+name, help, labels, nil)
	}
	return &collector{
		n:            n,
		keys:         d("keys", "Visible keys.", "keyspace"),
		cells:        d("cells", "Live cells, hidden ones included.", "keyspace"),
		cellBytes:    d("cell_bytes", "Bytes of keys and values of live cells.", "keyspace"),
		clockEntries: d("clock_entries", "Incarnations in the clock.", "keyspace"),
		pending:      d("pending_deaths", "Dots removed whose own op has not arrived.", "keyspace"),
		watchers:     d("watchers", "Open watches.", "keyspace"),
		opsIssued:    d("ops_issued_total", "Ops written at this node.", "keyspace"),
		opsReceived:  d("ops_received_total", "Ops received from peers.", "keyspace"),
		opsDuplicate: d("ops_duplicate_total", "Received ops that told nothing new.", "keyspace"),
		opsCoalesced: d("ops_coalesced_total", "Queued ops that a newer one stood for.", "keyspace"),
		lag:          d("op_last_lag_seconds", "Age of the last new op when it arrived, by its writer's clock.", "keyspace"),
		sessions:     d("sessions_total", "Reconciliation sessions by outcome.", "keyspace", "outcome"),
		sessionBytes: d("session_sent_bytes_total", "Bytes sent in sessions.", "keyspace"),
		cellsDropped: d("session_dropped_cells_total", "Cells dropped at the end of sessions.", "keyspace"),
		links:        d("links", "Established links."),
		linkBytes:    d("link_bytes", "Bytes over the established links.", "direction"),
		queued:       d("queued_ops", "Ops that wait to be sent, over all links.", "keyspace"),
		members:      d("members", "Members by status.", "status"),
		storeBytes:   d("store_bytes", "Size of the store's files."),
		storeBacklog: d("store_backlog_bytes", "Changes that are not on disk yet."),
		storeLag:     d("store_lag_seconds", "Age of the oldest change that is not on disk yet."),
		storeCommits: d("store_commits_total", "Batches committed."),
		drops:        d("drops_total", "Items dropped, by reason.", "reason"),
		clockAhead:   d("clock_far_ahead_total", "Writes whose clock was more than 5s ahead of ours.", "keyspace"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	n := c.n
	for _, ks := range n.sorted() {
		name, st, s := ks.Name(), ks.Status(), ks.Stats()
		gauge(c.keys, float64(st.Keys), name)
		gauge(c.cells, float64(st.Cells), name)
		gauge(c.cellBytes, float64(ks.Bytes()), name)
		gauge(c.clockEntries, float64(st.ClockEntries), name)
		gauge(c.pending, float64(st.Pending), name)
		gauge(c.watchers, float64(st.Watchers), name)
		gauge(c.lag, float64(s.LastLagMs)/1e3, name)
		gauge(c.queued, float64(s.QueuedOps), name)
		count(c.opsIssued, float64(s.OpsIssued), name)
		count(c.opsReceived, float64(s.OpsReceived), name)
		count(c.opsDuplicate, float64(s.OpsDuplicate), name)
		count(c.opsCoalesced, float64(s.OpsCoalesced), name)
		count(c.sessions, float64(s.SessionsDone), name, "done")
		count(c.sessions, float64(s.SessionsAborted), name, "aborted")
		count(c.sessions, float64(s.SessionsTimedOut), name, "timed_out")
		count(c.sessions, float64(s.SessionsLost), name, "lost")
		count(c.sessionBytes, float64(s.SessionBytesSent), name)
		count(c.cellsDropped, float64(s.CellsDropped), name)
		count(c.clockAhead, float64(s.OpsFarAhead), name)
	}
	var sent, received int64
	for _, p := range n.allPeers() {
		sent += p.link.SentBytes()
		received += p.link.RecvBytes()
	}
	gauge(c.links, float64(n.peers.Size()))
	gauge(c.linkBytes, float64(sent), "sent")
	gauge(c.linkBytes, float64(received), "received")
	statuses := map[client.MemberStatus]int{client.MemberAlive: 0, client.MemberSuspect: 0, client.MemberFailed: 0, client.MemberLeft: 0}
	for _, m := range n.mesh.Members() {
		statuses[memberStatus(m.Status)]++
	}
	for status, k := range statuses {
		gauge(c.members, float64(k), string(status))
	}
	if n.writer != nil {
		st := n.store.Stats()
		bytes, lag := n.writer.Backlog()
		gauge(c.storeBytes, float64(st.DataBytes+st.LogBytes))
		gauge(c.storeBacklog, float64(bytes))
		gauge(c.storeLag, lag.Seconds())
		count(c.storeCommits, float64(st.Commits))
	}
	for reason, k := range n.drops.snapshot() {
		count(c.drops, float64(k), reason)
	}
}
