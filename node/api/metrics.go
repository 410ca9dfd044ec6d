package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// transport, operation and rejection are the fixed label sets of the metrics.
type (
	transport uint8
	operation uint8
	rejection uint8
)

const (
	overHTTP transport = iota
	overNative
	transports
)

const (
	opPut operation = iota
	opGet
	opDelete
	opList
	opWatch
	opInfo
	opDigest
	opKeyspaces
	opMembers
	opStatus
	opLeave
	opForceLeave
	opTxn
	opSession
	opLock
	opPool
	opStrong
	opAdmin
	opUpdate
	opView
	opElements
	opHistory
	opOther
	operations
)

const (
	rejectConns rejection = iota
	rejectWatches
	rejectInflight
	rejectFrame
	rejectSlow
	rejectDraining
	rejections
)

var (
	transportNames = [transports]string{"http", "native"}
	operationNames = [operations]string{"put", "get", "delete", "list", "watch", "info", "digest", "keyspaces", "members", "status", "leave", "force_leave",
		"txn", "session", "lock", "pool", "strong", "admin", "update", "view", "elements", "history", "other"}
	rejectionNames = [rejections]string{"connections", "watches", "inflight_bytes", "bad_frame", "slow_reader", "draining"}
)

// metrics are what the server counts about itself. Everything is resolved at
// the start, so that counting is one atomic addition.
type metrics struct {
	requests    [transports][operations][codes]prometheus.Counter
	seconds     [transports][operations]prometheus.Observer
	watches     [transports]prometheus.Gauge
	reject      [rejections]prometheus.Counter
	events      [transports]prometheus.Counter
	connections prometheus.Gauge
	native      prometheus.Gauge
}

func newMetrics(reg *prometheus.Registry) *metrics {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meshkv_api_requests_total", Help: "Requests that ended, by outcome.",
	}, []string{"transport", "op", "code"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "meshkv_api_request_seconds", Help: "Time from a request's arrival to its answer, without watches.",
		Buckets: []float64{10e-6, 50e-6, 100e-6, 500e-6, 1e-3, 5e-3, 20e-3, 100e-3, 1, 10},
	}, []string{"transport", "op"})
	watches := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "meshkv_api_watches", Help: "Open watches.",
	}, []string{"transport"})
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meshkv_api_events_total", Help: "Events sent to watches.",
	}, []string{"transport"})
	reject := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meshkv_api_rejected_total", Help: "Connections, frames and requests refused or cut at a bound.",
	}, []string{"reason"})
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshkv_api_connections", Help: "Open client connections.",
		}),
		native: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshkv_api_native_connections", Help: "Open client connections that speak the native protocol.",
		}),
	}
	reg.MustRegister(requests, seconds, watches, events, reject, m.connections, m.native)
	for t := range transports {
		m.watches[t] = watches.WithLabelValues(transportNames[t])
		m.events[t] = events.WithLabelValues(transportNames[t])
		for op := range operations {
			m.seconds[t][op] = seconds.WithLabelValues(transportNames[t], operationNames[op])
			for c := range codes {
				m.requests[t][op][c] = requests.WithLabelValues(transportNames[t], operationNames[op], failures[c].code)
			}
		}
	}
	for r := range rejections {
		m.reject[r] = reject.WithLabelValues(rejectionNames[r])
	}
	return m
}

func (m *metrics) rejected(r rejection) { m.reject[r].Inc() }

// done counts a request that ended.
func (m *metrics) done(t transport, op operation, err error, took time.Duration) {
	m.requests[t][op][failureOf(err)].Inc()
	if op != opWatch {
		m.seconds[t][op].Observe(took.Seconds())
	}
}
