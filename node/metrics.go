package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/keyspace"
)

// A measure is one metric that is read from a T when /metrics is asked for, so
// that nothing is counted twice.
type measure[T any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*T) float64
}

func (m measure[T]) collect(ch chan<- prometheus.Metric, from *T, labels ...string) {
	ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.read(from), labels...)
}

// describe is the metric of that name. Names, units and labels are part of what
// docs/http.md promises.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("meshkv_"+name, help, labels, nil)
}

// A keyspaceSample is one keyspace at the moment at which it was asked.
type keyspaceSample struct {
	status client.KeyspaceStatus
	stats  gossip.Stats
}

// A collector shows a node's counts at /metrics.
type collector struct {
	n         *Node
	keyspaces []measure[keyspaceSample]
	links     []measure[client.LinkStatus]
	storage   []measure[client.StorageStatus]

	sessions, sessionBytes, keyspaceDrops, roles *prometheus.Desc
	refused                                      *prometheus.Desc
	lag, originP50, originP99                    *prometheus.Desc
	linkBytes, members, drops                    *prometheus.Desc
	ready, warnings, clockOffset, degree         *prometheus.Desc
}

func newCollector(n *Node) *collector {
	return &collector{
		n:         n,
		keyspaces: keyspaceMeasures(),
		links:     linkMeasures(),
		storage:   storageMeasures(),

		sessions:      describe("sessions_total", "Reconciliation sessions that ended, by outcome.", "keyspace", "outcome"),
		sessionBytes:  describe("session_bytes_total", "Bytes of reconciliation sessions.", "keyspace", "direction"),
		keyspaceDrops: describe("keyspace_drops_total", "Items of a keyspace dropped, by reason.", "keyspace", "reason"),
		refused:       describe("refused_writes_total", "Writes that the settings of a keyspace refused, by reason.", "keyspace", "reason"),
		roles:         describe("keyspace_links", "Links of a keyspace by the role of the peer.", "keyspace", "role"),
		lag:           describe("op_lag_seconds", "Age of new ops when they arrived, by the clocks of their writer and of this node.", "keyspace"),
		originP50:     describe("origin_lag_p50_seconds", "Age of what one origin wrote when it arrived, median of the last 5 minutes; the 20 origins with the highest.", "keyspace", "origin"),
		originP99:     describe("origin_lag_p99_seconds", "Age of what one origin wrote when it arrived, 99th percentile of the last 5 minutes; the same origins.", "keyspace", "origin"),
		linkBytes:     describe("link_bytes", "Bytes over the present link to a peer.", "peer", "direction"),
		members:       describe("members", "Members by status.", "status"),
		drops:         describe("drops_total", "Items dropped that belong to no keyspace, by reason.", "reason"),
		ready:         describe("ready", "1 if the node is ready."),
		warnings:      describe("warnings", "Things that an operator should look at: see the status."),
		clockOffset:   describe("clock_offset_seconds", "How far the clock of the median neighbour is ahead of ours."),
		degree:        describe("links", "Established links."),
	}
}

func keyspaceMeasures() (all []measure[keyspaceSample]) {
	add := func(kind prometheus.ValueType, name, help string, read func(*keyspaceSample) float64) {
		all = append(all, measure[keyspaceSample]{describe(name, help, "keyspace"), kind, read})
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue

	add(gauge, "keys", "Visible keys.", func(s *keyspaceSample) float64 { return float64(s.status.Keys) })
	add(gauge, "cells", "Live cells, hidden ones included.", func(s *keyspaceSample) float64 { return float64(s.status.Cells) })
	add(gauge, "cell_bytes", "Bytes of keys and values of live cells.", func(s *keyspaceSample) float64 { return float64(s.status.Bytes) })
	add(gauge, "clock_entries", "Incarnations in the clock, the size of C.", func(s *keyspaceSample) float64 { return float64(s.status.ClockEntries) })
	add(gauge, "clock_closed", "Incarnations in the clock that ended.", func(s *keyspaceSample) float64 { return float64(s.status.ClockClosed) })
	add(gauge, "clock_sealed", "Those of them on which all members agree.", func(s *keyspaceSample) float64 { return float64(s.status.ClockSealed) })
	add(counter, "rejected_cells_total", "Cells given up after a long absence.", func(s *keyspaceSample) float64 { return float64(s.status.Rejected) })
	add(gauge, "pending_deaths", "Dots removed whose own op has not arrived, the size of D.", func(s *keyspaceSample) float64 { return float64(s.status.Pending) })
	add(counter, "invalid_values_total", "Values from elsewhere that the settings of the keyspace would have refused.", func(s *keyspaceSample) float64 { return float64(s.status.Invalid) })
	add(gauge, "watchers", "Open watches.", func(s *keyspaceSample) float64 { return float64(s.status.Watchers) })

	add(counter, "ops_issued_total", "Ops written at this node.", func(s *keyspaceSample) float64 { return float64(s.stats.OpsIssued) })
	add(counter, "ops_received_total", "Ops received from peers.", func(s *keyspaceSample) float64 { return float64(s.stats.OpsReceived) })
	add(counter, "ops_duplicate_total", "Received ops that told nothing new.", func(s *keyspaceSample) float64 { return float64(s.stats.OpsDuplicate) })
	add(counter, "ops_sent_total", "Ops sent, over all links.", func(s *keyspaceSample) float64 { return float64(s.stats.OpsSent) })
	add(counter, "ops_grafted_total", "Ops sent because a peer asked for them.", func(s *keyspaceSample) float64 { return float64(s.stats.OpsGrafted) })
	add(counter, "ops_coalesced_total", "Queued ops that a newer one stood for.", func(s *keyspaceSample) float64 { return float64(s.stats.OpsCoalesced) })
	add(counter, "clock_far_ahead_total", "Writes whose clock was more than 5s ahead of ours.", func(s *keyspaceSample) float64 { return float64(s.stats.OpsFarAhead) })
	add(counter, "keyspace_sent_bytes_total", "Bytes of frames sent, over all links.", func(s *keyspaceSample) float64 { return float64(s.stats.BytesSent) })
	add(counter, "keyspace_received_bytes_total", "Bytes of frames received, over all links.", func(s *keyspaceSample) float64 { return float64(s.stats.BytesReceived) })
	add(counter, "beacons_received_total", "Beacons received.", func(s *keyspaceSample) float64 { return float64(s.stats.BeaconsReceived) })

	add(gauge, "queued_ops", "Ops that wait to be sent, over all links.", func(s *keyspaceSample) float64 { return float64(s.stats.QueuedOps) })
	add(gauge, "queued_bytes", "Bytes that wait to be sent, over all links.", func(s *keyspaceSample) float64 { return float64(s.stats.QueuedBytes) })
	add(gauge, "recent_bytes", "Bytes of recent ops that are kept for peers who ask again.", func(s *keyspaceSample) float64 { return float64(s.stats.RingBytes) })
	add(gauge, "links_behind", "Links whose queue was dropped and that wait for a session.", func(s *keyspaceSample) float64 { return float64(s.stats.LinksBehind) })
	add(counter, "queue_overflows_total", "Queues dropped at their bound; a session repairs each.", func(s *keyspaceSample) float64 { return float64(s.stats.Overflows) })

	add(gauge, "choked", "1 while the peers are asked to send no ops.", func(s *keyspaceSample) float64 { return float64(s.stats.Choked) })
	add(gauge, "links_choked", "Links whose peer takes no ops for now.", func(s *keyspaceSample) float64 { return float64(s.stats.LinksChoked) })
	add(gauge, "tree_eager_links", "Pairs of a link and an origin whose ops are pushed over it.", func(s *keyspaceSample) float64 { return float64(s.stats.LinksEager) })
	add(gauge, "tree_lazy_links", "Pairs of a link and an origin whose ops are only announced on it.", func(s *keyspaceSample) float64 { return float64(s.stats.LinksLazy) })
	add(counter, "prunes_sent_total", "Links taken out of a tree because ops came twice.", func(s *keyspaceSample) float64 { return float64(s.stats.PrunesSent) })

	add(gauge, "sessions", "Reconciliation sessions that run.", func(s *keyspaceSample) float64 { return float64(s.stats.Sessions) })
	add(counter, "sessions_busy_total", "Sessions that a busy peer refused.", func(s *keyspaceSample) float64 { return float64(s.stats.BusyReceived) })
	add(counter, "session_cells_total", "Cells received in sessions.", func(s *keyspaceSample) float64 { return float64(s.stats.CellsProvided) })
	add(counter, "session_dropped_cells_total", "Cells dropped at the end of sessions.", func(s *keyspaceSample) float64 { return float64(s.stats.CellsDropped) })
	add(gauge, "fuse_held_cells", "Cells that a session would drop, waiting for a second verdict.", func(s *keyspaceSample) float64 { return float64(s.status.FuseHeld) })
	add(counter, "summaries_unequal_total", "Summaries of peers that differed from ours.", func(s *keyspaceSample) float64 { return float64(s.stats.SummariesUnequal) })
	add(gauge, "unequal_peers", "Peers whose last two summaries or more differed from ours.", func(s *keyspaceSample) float64 { return float64(s.status.Unequal) })
	add(gauge, "diverged_peers", "Peers that hold something else for a reason other than lag: an alarm.", func(s *keyspaceSample) float64 { return float64(len(s.status.Divergences)) })
	add(counter, "divergence_alarms_total", "Alarms raised.", func(s *keyspaceSample) float64 { return float64(s.stats.DivergenceAlarms) })
	add(gauge, "bootstrap_done_cells", "Cells that an empty keyspace has received; 0 when it is filled.", func(s *keyspaceSample) float64 { return running(s, s.status.Bootstrap.Done) })
	add(gauge, "bootstrap_expected_cells", "Cells that the keyspace had where it is filled from; 0 when it is filled.", func(s *keyspaceSample) float64 { return running(s, s.status.Bootstrap.Total) })
	add(counter, "scrubs_total", "Comparisons of the tries with the cells.", func(s *keyspaceSample) float64 { return float64(s.status.Scrub.Runs) })
	add(counter, "scrub_differences_total", "Sums of the tries that did not fit the cells, and were repaired: an alarm.", func(s *keyspaceSample) float64 { return float64(s.status.Scrub.Differences) })
	add(gauge, "damaged", "1 if a value is missing in memory that the sums count: an alarm.", func(s *keyspaceSample) float64 { return float64(s.stats.Damaged) })
	return all
}

func running(s *keyspaceSample, cells int) float64 {
	if !s.status.Bootstrap.Running {
		return 0
	}
	return float64(cells)
}

func linkMeasures() (all []measure[client.LinkStatus]) {
	add := func(name, help string, read func(*client.LinkStatus) float64) {
		all = append(all, measure[client.LinkStatus]{describe(name, help, "peer"), prometheus.GaugeValue, read})
	}
	add("link_rtt_seconds", "Round-trip time of a link, smoothed; 0 before it is known.", func(l *client.LinkStatus) float64 { return l.RTT.Seconds() })
	add("link_queued_ops", "Ops that wait on a link, over all keyspaces.", func(l *client.LinkStatus) float64 { return float64(l.Queued) })
	add("link_queued_bytes", "Bytes that wait on a link, over all keyspaces.", func(l *client.LinkStatus) float64 { return float64(l.QueuedBytes) })
	return all
}

func storageMeasures() (all []measure[client.StorageStatus]) {
	add := func(kind prometheus.ValueType, name, help string, read func(*client.StorageStatus) float64) {
		all = append(all, measure[client.StorageStatus]{describe(name, help), kind, read})
	}
	add(prometheus.GaugeValue, "store_bytes", "Size of the store's files.", func(s *client.StorageStatus) float64 { return float64(s.Bytes) })
	add(prometheus.GaugeValue, "store_backlog_bytes", "Changes that are not on disk yet.", func(s *client.StorageStatus) float64 { return float64(s.Backlog) })
	add(prometheus.GaugeValue, "store_lag_seconds", "Age of the oldest change that is not on disk yet.", func(s *client.StorageStatus) float64 { return s.Lag.Seconds() })
	add(prometheus.CounterValue, "store_commits_total", "Batches committed.", func(s *client.StorageStatus) float64 { return float64(s.Commits) })
	return all
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	n := c.n
	all := n.sorted()
	for _, ks := range all {
		c.collectKeyspace(ch, ks)
	}
	links, clock := n.linkStatuses(all)
	gauge(c.degree, float64(len(links)))
	gauge(c.clockOffset, clock.Offset.Seconds())
	seen := make(map[string]bool, len(links)) // while a peer restarts it may have two
	for i := range links {
		if l := &links[i]; !seen[l.Peer] {
			seen[l.Peer] = true
			gauge(c.linkBytes, float64(l.SentBytes), l.Peer, "sent")
			gauge(c.linkBytes, float64(l.RecvBytes), l.Peer, "received")
			for _, m := range c.links {
				m.collect(ch, l, l.Peer)
			}
		}
	}
	statuses := map[client.MemberStatus]int{client.MemberAlive: 0, client.MemberSuspect: 0, client.MemberFailed: 0, client.MemberLeft: 0}
	for _, m := range n.mesh.Members() {
		statuses[memberStatus(m.Status)]++
	}
	for status, k := range statuses {
		gauge(c.members, float64(k), string(status))
	}
	gauge(c.ready, float64(count(len(n.NotReady()) == 0)))
	gauge(c.warnings, float64(len(n.Warnings())))
	if n.writer != nil {
		st := n.storageStatus()
		for _, m := range c.storage {
			m.collect(ch, &st)
		}
	}
	for reason, k := range n.drops.snapshot() {
		ch <- prometheus.MustNewConstMetric(c.drops, prometheus.CounterValue, float64(k), reason)
	}
}

func (c *collector) collectKeyspace(ch chan<- prometheus.Metric, ks *keyspace.Keyspace) {
	sample := keyspaceSample{status: ks.Status(), stats: ks.Stats()}
	name, st, s := ks.Name(), &sample.status, &sample.stats
	for _, m := range c.keyspaces {
		m.collect(ch, &sample, name)
	}
	counts := func(d *prometheus.Desc, v int64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), name, label)
	}
	counts(c.sessions, s.SessionsDone, "done")
	counts(c.sessions, s.SessionsAborted, "aborted")
	counts(c.sessions, s.SessionsAbortedByPeer, "aborted_by_peer")
	counts(c.sessions, s.SessionsTimedOut, "timed_out")
	counts(c.sessions, s.SessionsLost, "lost")
	counts(c.sessionBytes, s.SessionBytesSent, "sent")
	counts(c.sessionBytes, s.SessionBytesReceived, "received")
	for reason, k := range st.Drops {
		counts(c.keyspaceDrops, int64(k), reason)
	}
	for reason, k := range st.Refused {
		counts(c.refused, int64(k), reason)
	}
	roles := map[string]int{gossip.RoleDirect.String(): 0, gossip.RoleTree.String(): 0, gossip.RoleQuiet.String(): 0}
	for _, l := range ks.Links() {
		roles[l.Role.String()]++
	}
	for role, k := range roles {
		ch <- prometheus.MustNewConstMetric(c.roles, prometheus.GaugeValue, float64(k), name, role)
	}

	// Cumulative, as histograms are.
	buckets := make(map[float64]uint64, gossip.LagBuckets)
	var seen uint64
	for i := range gossip.LagBuckets - 1 {
		seen += uint64(s.Lag[i])
		buckets[gossip.Lag(i).Seconds()] = seen
	}
	seen += uint64(s.Lag[gossip.LagBuckets-1])
	ch <- prometheus.MustNewConstHistogram(c.lag, seen, float64(s.LagSumMs)/1e3, buckets, name)
	for _, o := range st.Origins {
		ch <- prometheus.MustNewConstMetric(c.originP50, prometheus.GaugeValue, o.P50.Seconds(), name, o.Name)
		ch <- prometheus.MustNewConstMetric(c.originP99, prometheus.GaugeValue, o.P99.Seconds(), name, o.Name)
	}
}
