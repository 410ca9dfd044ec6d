package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

// The keyspaces of the sample: what a VXLAN control plane distributes.
const (
	nodesKeyspace     = "nodes"     // host name -> its tunnel endpoint
	endpointsKeyspace = "endpoints" // container address -> where it is
	routesKeyspace    = "routes"    // entries that are bound to no node
)

var sampleKeyspaces = []string{nodesKeyspace, endpointsKeyspace}

const endpointsPerHost = 2

// A hostRecord tells others how to reach a host's containers.
type hostRecord struct {
	VTEP   string `json:"vtep"`
	MAC    string `json:"mac"`
	VNI    int    `json:"vni"`
	Subnet string `json:"subnet"`
}

// An endpointRecord tells others behind which host a container is.
type endpointRecord struct {
	MAC   string `json:"mac"`
	VTEP  string `json:"vtep"`
	Owner string `json:"owner"`
}

// announce writes the records of the node's host, on that node and bound to
// its life: they disappear everywhere when it fails.
func announce(ctx context.Context, n *demoNode) error {
	vtep := fmt.Sprintf("192.0.2.%d", n.number)
	host := hostRecord{VTEP: vtep, MAC: sampleMAC(n.name), VNI: 42, Subnet: fmt.Sprintf("10.42.%d.0/24", n.number)}
	if err := putRecord(ctx, n, nodesKeyspace, n.name, host); err != nil {
		return err
	}
	for i := range endpointsPerHost {
		ip := fmt.Sprintf("10.42.%d.%d", n.number, i+2)
		ep := endpointRecord{MAC: sampleMAC(ip), VTEP: vtep, Owner: n.name}
		if err := putRecord(ctx, n, endpointsKeyspace, ip, ep); err != nil {
			return err
		}
	}
	return nil
}

func (c *demoCluster) announceAll(ctx context.Context) error {
	for _, n := range c.running() {
		if err := announce(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func putRecord(ctx context.Context, n *demoNode, keyspace, key string, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return n.put(ctx, keyspace, key, value, true)
}

// sampleMAC is a locally administered address derived from a name, so that it
// survives a restart.
func sampleMAC(name string) string {
	h := sha256.Sum256([]byte(name))
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", h[0], h[1], h[2], h[3], h[4])
}
