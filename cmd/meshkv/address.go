package main

import "strings"

const maxKeyBytes = 1024

// parseAddress splits KEYSPACE/KEY. The key is everything after the first
// slash, slashes included.
func parseAddress(arg string) (keyspace, key string, err error) {
	keyspace, key, found := strings.Cut(arg, "/")
	if err := checkKeyspace(keyspace); err != nil {
		return "", "", err
	}
	switch {
	case !found || key == "":
		return "", "", usagef("%q names no key: an address is KEYSPACE/KEY, such as nodes/host-1", printable(arg))
	case len(key) > maxKeyBytes:
		return "", "", usagef("the key has %d bytes: a key has 1 to %d bytes", len(key), maxKeyBytes)
	}
	return keyspace, key, nil
}

// parsePrefix splits KEYSPACE[/PREFIX].
func parsePrefix(arg string) (keyspace, prefix string, err error) {
	keyspace, prefix, _ = strings.Cut(arg, "/")
	if err := checkKeyspace(keyspace); err != nil {
		return "", "", err
	}
	if len(prefix) > maxKeyBytes {
		return "", "", usagef("the prefix has %d bytes: a key has 1 to %d bytes", len(prefix), maxKeyBytes)
	}
	return keyspace, prefix, nil
}

// checkKeyspace refuses what can be no keyspace. Those of the system pass: they can be
// read, and the node refuses the rest.
func checkKeyspace(name string) error {
	switch name {
	case "_keyspaces", "_members", "_seals":
		return nil
	}
	ok := len(name) >= 1 && len(name) <= 63
	for i, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && strings.IndexByte("._-", c) >= 0:
		default:
			ok = false
		}
	}
	if !ok {
		return usagef("%q is no keyspace name: use 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit (an address is KEYSPACE/KEY)", printable(name))
	}
	return nil
}
