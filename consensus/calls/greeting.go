package calls

import (
	"fmt"
	"io"
	"net"
	"time"
)

const version = 1

// greet exchanges greetings within timeout, the client's first. Errors match ErrCluster,
// ErrVersion, or are those of conn. A server answers before it judges, so that both sides
// know what is wrong.
func greet(conn net.Conn, client bool, id string, timeout time.Duration) error {
	if len(id) > maxClusterID {
		return fmt.Errorf("%w: an id of %d bytes", ErrCluster, len(id))
	}
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	own := append([]byte{version, byte(len(id))}, id...)
	if client {
		if _, err := conn.Write(own); err != nil {
			return err
		}
	}
	theirs := make([]byte, 2, 2+maxClusterID)
	_, err := io.ReadFull(conn, theirs)
	if err == nil && theirs[0] == version {
		theirs = theirs[:2+int(theirs[1])]
		_, err = io.ReadFull(conn, theirs[2:])
	}
	if err != nil {
		return err
	}
	if !client {
		if _, err := conn.Write(own); err != nil {
			return err
		}
	}
	if theirs[0] != version {
		return fmt.Errorf("%w: %d", ErrVersion, theirs[0])
	}
	if other := string(theirs[2:]); id != "" && other != "" && id != other {
		return fmt.Errorf("%w: %q, this is %q", ErrCluster, other, id)
	}
	return conn.SetDeadline(time.Time{})
}
