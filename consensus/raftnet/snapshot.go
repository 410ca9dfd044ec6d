package raftnet

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// A snapshot goes by a stream of its own:
//
//	→ length of the request u32, request, as many bytes of data as it says
//	← any number of 0, one each stillHere, while the replica works; then
//	  1, length u8, answer
const (
	// maxSnapshots is how many may come in for one replica, which takes one at a time.
	maxSnapshots = 2
	// maxSnapshotRequest bounds the request, whose largest part is the configuration.
	maxSnapshotRequest = 1 << 20
	// stillHere is how often a replica that takes in a snapshot says that it is there.
	stillHere = 2 * time.Second
	// standstill ends a stream on which nothing goes forward.
	standstill = 30 * time.Second
	// snapshotBuffer is how much is read and written at once.
	snapshotBuffer = 64 << 10

	working, answered = 0, 1
)

// A movingConn fails when a read or a write takes standstill.
type movingConn struct{ net.Conn }

func (c movingConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(standstill)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c movingConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(standstill)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// InstallSnapshot implements raft.Transport.
func (m *Member) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	raw, err := m.layer.DialLayer(m.nameAt(string(to)), string(to), rpcTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	conn := movingConn{raw}
	head := appendSnapshot(make([]byte, 4), req)
	if len(head)-4 > maxSnapshotRequest {
		return fmt.Errorf("snapshot with a configuration of %d bytes", len(req.Configuration))
	}
	binary.BigEndian.PutUint32(head, uint32(len(head)-4))
	if _, err := conn.Write(head); err != nil {
		return fmt.Errorf("send snapshot: %w", err)
	}
	if _, err := io.CopyN(conn, data, req.Size); err != nil {
		return fmt.Errorf("send snapshot: %w", err)
	}
	answer, err := readSnapshotAnswer(conn)
	if err != nil {
		return fmt.Errorf("snapshot was not answered: %w", err)
	}
	return decodeSnapshotAnswer(answer, resp)
}

func readSnapshotAnswer(r io.Reader) ([]byte, error) {
	in := bufio.NewReaderSize(r, 512)
	for {
		b, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		switch b {
		case working:
			continue
		case answered:
			n, err := in.ReadByte()
			if err != nil {
				return nil, err
			}
			answer := make([]byte, n)
			_, err = io.ReadFull(in, answer)
			return answer, err
		}
		return nil, errMalformed
	}
}

func (m *Member) acceptSnapshots() {
	for {
		conn, err := m.layer.Accept()
		if err != nil {
			return // closed
		}
		select {
		case m.snapshots <- struct{}{}:
		default:
			m.refused.Add(1)
			_ = conn.Close()
			continue
		}
		m.work.Go(func() {
			defer func() { <-m.snapshots }()
			defer func() { _ = conn.Close() }()
			_ = m.takeSnapshot(movingConn{conn}) // the sender learns by the end of the stream
		})
	}
}

// takeSnapshot has Raft take in what comes.
func (m *Member) takeSnapshot(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, snapshotBuffer)
	var length [4]byte
	if _, err := io.ReadFull(in, length[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxSnapshotRequest {
		return errMalformed
	}
	head := make([]byte, n)
	if _, err := io.ReadFull(in, head); err != nil {
		return err
	}
	req, err := decodeSnapshot(head)
	if err != nil {
		return err
	}
	responses := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: req, Reader: io.LimitReader(in, req.Size), RespChan: responses}
	alive := time.NewTicker(stillHere)
	defer alive.Stop()
	rpcs := m.rpcs
	for {
		select {
		case rpcs <- rpc:
			rpcs = nil // once
		case r := <-responses:
			answer, err := encodeResponse(r)
			if err != nil {
				return err
			}
			_, err = conn.Write(append([]byte{answered, byte(len(answer))}, answer...))
			return err
		case <-alive.C:
			if _, err := conn.Write([]byte{working}); err != nil {
				return err
			}
		case <-m.ctx.Done():
			return absent(m.nameAt(m.addr))
		}
	}
}
