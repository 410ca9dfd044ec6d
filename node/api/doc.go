// Package api serves one node to clients: the HTTP API and the native protocol
// (package client/wire), both on one port, over whatever implements Backend.
//
// Nothing here decides about data: requests are parsed, bounded, counted and
// handed to the backend. Everything a client can make the server hold has a
// bound: connections, requests in flight, their bytes, watches, and the bytes
// that wait for a slow reader. What meets a bound is refused with an error that
// says so, and counted in meshkv_api_rejected_total.
package api
