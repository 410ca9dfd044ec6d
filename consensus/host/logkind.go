package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/meshkv/meshkv/consensus/logstore"
)

// claimLogStore refuses to go on without the logs and votes that the server has given: its replicas
// would vote a second time, and what they acknowledged would be gone.
func (id *identity) claimLogStore(kind logstore.Kind, dir string) error {
	if kind == "" {
		kind = logstore.Journal
	}
	file := id.get()
	if len(file.Stores) == 0 {
		return id.change(func(f *identityFile) { f.LogStore = kind })
	}
	if file.LogStore != kind {
		return fmt.Errorf("%w: the replicas of this server keep their logs in log-store %s, not %s: give it that one", ErrIdentity, file.LogStore, kind)
	}
	if _, err := os.Stat(filepath.Join(dir, logstore.JournalDir)); kind == logstore.Journal && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the logs of the replicas are gone from %s: move the whole directory aside; the server joins its groups again under a new identity", ErrIdentity, dir)
	}
	return nil
}
