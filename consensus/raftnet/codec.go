package raftnet

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// errMalformed: a message is not one of this protocol.
var errMalformed = errors.New("malformed message of raft")

// What Raft no longer uses is left out: peers of a vote or a snapshot, and the leader's
// address beside that of the header. Headers of answers are not read by anybody.

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendNumbers(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendHeader(b []byte, h *raft.RPCHeader) []byte {
	b = binary.AppendUvarint(b, uint64(h.ProtocolVersion))
	return appendBytes(appendBytes(b, h.ID), h.Addr)
}

// appendAppend encodes r with entries instead of its own.
func appendAppend(b []byte, r *raft.AppendEntriesRequest, entries []*raft.Log) []byte {
	b = appendHeader(b, &r.RPCHeader)
	b = appendNumbers(b, r.Term, r.PrevLogEntry, r.PrevLogTerm, r.LeaderCommitIndex, uint64(len(entries)))
	for _, e := range entries {
		b = appendNumbers(b, e.Index, e.Term, uint64(e.Type))
		at := int64(0)
		if !e.AppendedAt.IsZero() {
			at = e.AppendedAt.UnixNano()
		}
		b = binary.AppendVarint(b, at)
		b = appendBytes(appendBytes(b, e.Data), e.Extensions)
	}
	return b
}

// maxEntry is at most what an entry takes beside data and extensions: six numbers.
const maxEntry = 6 * binary.MaxVarintLen64

func appendAppendAnswer(b []byte, r *raft.AppendEntriesResponse) []byte {
	b = appendNumbers(b, r.Term, r.LastLog)
	return appendBool(appendBool(b, r.Success), r.NoRetryBackoff)
}

func appendVote(b []byte, r *raft.RequestVoteRequest) []byte {
	b = appendNumbers(appendHeader(b, &r.RPCHeader), r.Term, r.LastLogIndex, r.LastLogTerm)
	return appendBool(b, r.LeadershipTransfer)
}

func appendPreVote(b []byte, r *raft.RequestPreVoteRequest) []byte {
	return appendNumbers(appendHeader(b, &r.RPCHeader), r.Term, r.LastLogIndex, r.LastLogTerm)
}

// appendVoteAnswer encodes the answer to a vote or a pre-vote.
func appendVoteAnswer(b []byte, term uint64, granted bool) []byte {
	return appendBool(appendNumbers(b, term), granted)
}

func appendSnapshot(b []byte, r *raft.InstallSnapshotRequest) []byte {
	b = appendNumbers(appendHeader(b, &r.RPCHeader), uint64(r.SnapshotVersion), r.Term, r.LastLogIndex, r.LastLogTerm, r.ConfigurationIndex, uint64(r.Size))
	return appendBytes(b, r.Configuration)
}

func appendSnapshotAnswer(b []byte, r *raft.InstallSnapshotResponse) []byte {
	return appendBool(appendNumbers(b, r.Term), r.Success)
}

// A decoder reads a message; bad is set by the first thing that is not in it. What it
// returns is part of the message.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() {
	d.bad, d.b = true, nil
}

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) signed() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// below is a number that is at most limit.
func (d *decoder) below(limit uint64) uint64 {
	v := d.number()
	if v > limit {
		d.fail()
		return 0
	}
	return v
}

func (d *decoder) bytes() []byte {
	n := d.number()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) bool() bool { return d.below(1) == 1 }

func (d *decoder) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(d.below(math.MaxInt32)), ID: d.bytes(), Addr: d.bytes()}
}

// end is the error of a message that was decoded.
func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return errMalformed
	}
	return nil
}

// maxEntries is how many entries a message may have; Raft's leader sends 128 at most. Each
// takes much more memory than what it has at least on the wire.
const maxEntries = 4096

// decodeAppend is the request in b, which it keeps.
func decodeAppend(b []byte) (*raft.AppendEntriesRequest, error) {
	d := decoder{b: b}
	r := &raft.AppendEntriesRequest{RPCHeader: d.header(), Term: d.number(), PrevLogEntry: d.number(), PrevLogTerm: d.number(), LeaderCommitIndex: d.number()}
	n := d.below(maxEntries)
	if n > 0 {
		entries := make([]raft.Log, n)
		r.Entries = make([]*raft.Log, n)
		for i := range entries {
			e := &entries[i]
			e.Index, e.Term, e.Type = d.number(), d.number(), raft.LogType(d.below(math.MaxUint8))
			if at := d.signed(); at != 0 {
				e.AppendedAt = time.Unix(0, at)
			}
			e.Data, e.Extensions = d.bytes(), d.bytes()
			r.Entries[i] = e
		}
	}
	return r, d.end()
}

func decodeAppendAnswer(b []byte, r *raft.AppendEntriesResponse) error {
	d := decoder{b: b}
	*r = raft.AppendEntriesResponse{Term: d.number(), LastLog: d.number(), Success: d.bool(), NoRetryBackoff: d.bool()}
	return d.end()
}

func decodeVote(b []byte) (*raft.RequestVoteRequest, error) {
	d := decoder{b: b}
	r := &raft.RequestVoteRequest{RPCHeader: d.header(), Term: d.number(), LastLogIndex: d.number(), LastLogTerm: d.number(), LeadershipTransfer: d.bool()}
	return r, d.end()
}

func decodePreVote(b []byte) (*raft.RequestPreVoteRequest, error) {
	d := decoder{b: b}
	r := &raft.RequestPreVoteRequest{RPCHeader: d.header(), Term: d.number(), LastLogIndex: d.number(), LastLogTerm: d.number()}
	return r, d.end()
}

func decodeVoteAnswer(b []byte) (term uint64, granted bool, err error) {
	d := decoder{b: b}
	term, granted = d.number(), d.bool()
	return term, granted, d.end()
}

func decodeTimeoutNow(b []byte) (*raft.TimeoutNowRequest, error) {
	d := decoder{b: b}
	r := &raft.TimeoutNowRequest{RPCHeader: d.header()}
	return r, d.end()
}

func decodeSnapshot(b []byte) (*raft.InstallSnapshotRequest, error) {
	d := decoder{b: b}
	r := &raft.InstallSnapshotRequest{
		RPCHeader: d.header(), SnapshotVersion: raft.SnapshotVersion(d.below(math.MaxInt32)),
		Term: d.number(), LastLogIndex: d.number(), LastLogTerm: d.number(), ConfigurationIndex: d.number(), Size: int64(d.below(math.MaxInt64)),
		Configuration: d.bytes(),
	}
	return r, d.end()
}

func decodeSnapshotAnswer(b []byte, r *raft.InstallSnapshotResponse) error {
	d := decoder{b: b}
	*r = raft.InstallSnapshotResponse{Term: d.number(), Success: d.bool()}
	return d.end()
}
