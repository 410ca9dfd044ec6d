package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

const (
	entryVersion   = 1
	entryKeyBytes  = 4 + 8
	entryHeadBytes = 4 + 1 + 1 + 8 + 8 + 4
	maxEntryBytes  = 16 << 20
	checksumBytes  = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// An entryID is the place of an entry: the group's number and the index.
type entryID struct {
	group uint32
	index uint64
}

func (id entryID) appendKey(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, id.group)
	return binary.BigEndian.AppendUint64(b, id.index)
}

// checksum covers the key, so that the same bytes at another place are invalid.
func checksum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}

// unstamp verifies value, which begins with its checksum, and returns the rest.
func unstamp(key, value []byte) (body []byte, ok bool) {
	if len(value) < checksumBytes || binary.LittleEndian.Uint32(value) != checksum(key, value[checksumBytes:]) {
		return nil, false
	}
	return value[checksumBytes:], true
}

func entrySize(log *raft.Log) int { return entryHeadBytes + len(log.Extensions) + len(log.Data) }

// appendEntry appends the stored value of log, the entry of id, to b. Times of
// append outside the years 1678 to 2262 are not kept.
func appendEntry(b []byte, id entryID, log *raft.Log) []byte {
	var key [entryKeyBytes]byte
	start := len(b)
	b = append(b, 0, 0, 0, 0, entryVersion, byte(log.Type))
	b = binary.LittleEndian.AppendUint64(b, log.Term)
	var at int64
	if ns := log.AppendedAt.UnixNano(); time.Unix(0, ns).Equal(log.AppendedAt) {
		at = ns
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(log.Extensions)))
	b = append(b, log.Extensions...)
	b = append(b, log.Data...)
	binary.LittleEndian.PutUint32(b[start:], checksum(id.appendKey(key[:0]), b[start+checksumBytes:]))
	return b
}

// decodeEntry sets log to the entry of id. It refers to value afterwards.
func decodeEntry(id entryID, value []byte, log *raft.Log) error {
	var room [entryKeyBytes]byte
	body, ok := unstamp(id.appendKey(room[:0]), value)
	if !ok {
		return errors.New("fails its checksum")
	}
	if len(body) < entryHeadBytes-checksumBytes {
		return fmt.Errorf("of %d bytes", len(value))
	}
	if body[0] != entryVersion {
		return fmt.Errorf("of version %d, known is %d", body[0], entryVersion)
	}
	ext := uint64(binary.LittleEndian.Uint32(body[18:]))
	rest := body[22:]
	if ext > uint64(len(rest)) {
		return fmt.Errorf("with %d bytes of extensions in %d", ext, len(rest))
	}
	*log = raft.Log{Index: id.index, Term: binary.LittleEndian.Uint64(body[2:]), Type: raft.LogType(body[1])}
	if at := int64(binary.LittleEndian.Uint64(body[10:])); at != 0 {
		log.AppendedAt = time.Unix(0, at)
	}
	if ext > 0 {
		log.Extensions = rest[:ext:ext]
	}
	if rest = rest[ext:]; len(rest) > 0 {
		log.Data = rest
	}
	return nil
}
