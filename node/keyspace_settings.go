package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/keyspace"
)

// The settings of a keyspace are entries of the catalog of their own, one for each, under
// ID/NAME: so two changes that did not know of each other are both kept, and what was
// set for a keyspace does not hold for a later one of its name. A setting that is taken
// away is deleted: one that was set without knowing of that stays.

// A setting is one of them, as text.
type setting struct {
	name  string
	of    func(c *client.SettingsChange) (text string, named bool) // empty text: take it away
	apply func(s *client.KeyspaceSettings, text string) error
}

func numberSetting(name string, of func(*client.SettingsChange) *int64, field func(*client.KeyspaceSettings) *int64) setting {
	return setting{name: name,
		of: func(c *client.SettingsChange) (string, bool) {
			switch n := of(c); {
			case n == nil:
				return "", false
			case *n == 0:
				return "", true
			default:
				return strconv.FormatInt(*n, 10), true
			}
		},
		apply: func(s *client.KeyspaceSettings, text string) error {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n <= 0 {
				return fmt.Errorf("%w: setting %s is no positive number", client.ErrBadRequest, name)
			}
			*field(s) = n
			return nil
		},
	}
}

func allSettings() []setting {
	return []setting{
		{name: "frozen",
			of: func(c *client.SettingsChange) (string, bool) {
				if c.Frozen != nil && *c.Frozen {
					return "true", true
				}
				return "", c.Frozen != nil
			},
			apply: func(s *client.KeyspaceSettings, _ string) error {
				s.Frozen = true
				return nil
			},
		},
		numberSetting("max_value", func(c *client.SettingsChange) *int64 { return c.MaxValue }, func(s *client.KeyspaceSettings) *int64 { return &s.MaxValue }),
		numberSetting("max_keys", func(c *client.SettingsChange) *int64 { return c.MaxKeys }, func(s *client.KeyspaceSettings) *int64 { return &s.MaxKeys }),
		numberSetting("max_bytes", func(c *client.SettingsChange) *int64 { return c.MaxBytes }, func(s *client.KeyspaceSettings) *int64 { return &s.MaxBytes }),
		numberSetting("rate", func(c *client.SettingsChange) *int64 { return c.Rate }, func(s *client.KeyspaceSettings) *int64 { return &s.Rate }),
		{name: "schema",
			of: func(c *client.SettingsChange) (string, bool) {
				if c.Schema == nil {
					return "", false
				}
				return *c.Schema, true
			},
			apply: func(s *client.KeyspaceSettings, text string) error {
				s.Schema = text
				return nil
			},
		},
	}
}

// settingKey is the key of a setting in the catalog.
func settingKey(id keyspaceID, name string) string { return id.String() + "/" + name }

// settingOf is the keyspace of a key of the catalog, if it is that of a setting.
func settingOf(key string) (id keyspaceID, is bool) {
	text, _, is := strings.Cut(key, "/")
	if !is {
		return keyspaceID{}, false
	}
	id, err := parseKeyspaceID(text)
	if err != nil {
		return keyspaceID{}, false
	}
	return id, true
}

// readSettings is what the catalog says of a keyspace. Settings of a later version, and
// what cannot be read, are left out and counted.
func (n *Node) readSettings(ctx context.Context, id keyspaceID) (s client.KeyspaceSettings, err error) {
	known := allSettings()
	for e, err := range n.held(catalogKeyspace).ks.List(ctx, id.String()+"/", nil) {
		if err != nil {
			return s, err
		}
		name := strings.TrimPrefix(e.Key, id.String()+"/")
		understood := false
		for _, k := range known {
			understood = understood || k.name == name && k.apply(&s, string(e.Value)) == nil
		}
		if !understood {
			n.drops.add("setting_not_understood")
		}
	}
	return s, nil
}

// applySettings makes a holding heed what the catalog says. Called with linkMu held, so
// that of two readings the later one is applied last.
func (n *Node) applySettings(now time.Time, h *holding) {
	if isSystem(h.id.Name) || isMirror(h.id.Name) {
		return
	}
	s, err := n.readSettings(context.Background(), h.id)
	if err != nil || s == h.ks.Settings() {
		return // the context does not end, and there is no other error
	}
	was := h.ks.Settings()
	err = h.ks.SetSettings(now, s)
	if err != nil {
		n.log.Warn("the schema of a keyspace cannot be read: values are not checked", "keyspace", h.id.Name, "err", err)
	}
	if s.Frozen != was.Frozen {
		n.log.Info("keyspace frozen or thawed", "keyspace", h.id.Name, "frozen", s.Frozen)
	}
}

// heedSettings applies an event of the catalog, if it is about settings.
func (n *Node) heedSettings(ev client.Event) (is bool) {
	now := time.Now()
	if ev.Type == client.EventSynced { // after a resync, deletes may have been missed
		n.linkMu.Lock()
		defer n.linkMu.Unlock()
		for _, h := range n.allHeld() {
			n.applySettings(now, h)
		}
		return true
	}
	id, is := settingOf(ev.Entry.Key)
	if !is {
		return false
	}
	if known, _ := n.catalog.life(id.Name); ev.Type == client.EventPut && id.Gen < known.Generation {
		n.tidySettings(id)
		return true
	}
	n.linkMu.Lock()
	defer n.linkMu.Unlock()
	if h := n.held(id.Name); h != nil && h.id == id {
		n.applySettings(now, h)
	}
	return true
}

// tidySettings deletes the settings of a life that has ended, which somebody set without
// knowing of that. One node does so for all; what it misses takes room in the catalog,
// and is for nothing.
func (n *Node) tidySettings(id keyspaceID) {
	if !n.held(catalogKeyspace).ks.Chosen() {
		return
	}
	if err := n.forgetSettings(context.Background(), id); err != nil {
		n.log.Debug("settings not deleted", "keyspace", id.Name, "err", err)
	}
}

// settingsOf finds the keyspace whose settings are asked for.
func (n *Node) settingsOf(name string) (keyspaceID, error) {
	if err := checkUserKeyspace(name); err != nil {
		return keyspaceID{}, err
	}
	if n.strongs.is(name) {
		return keyspaceID{}, fmt.Errorf("%w: %s is strong; its quota is given when it is created, and transactions check what is written", client.ErrNeedsEventual, name)
	}
	known, exists := n.catalog.life(name)
	if !exists {
		return keyspaceID{}, fmt.Errorf("keyspace %s: %w", name, client.ErrNotFound)
	}
	return keyspaceID{name, known.Generation}, nil
}

// Settings implements client.KeyspaceOperator.
func (n *Node) Settings(ctx context.Context, name string) (client.KeyspaceSettings, error) {
	id, err := n.settingsOf(name)
	if err != nil {
		return client.KeyspaceSettings{}, err
	}
	return n.readSettings(ctx, id)
}

// ChangeSettings implements client.KeyspaceOperator. Every node has the catalog, so it can
// be asked of any.
func (n *Node) ChangeSettings(ctx context.Context, name string, change client.SettingsChange) (s client.KeyspaceSettings, err error) {
	if err := change.Check(); err != nil {
		return s, err
	}
	if change.Schema != nil && *change.Schema != "" {
		if _, err := keyspace.ReadSchema(*change.Schema); err != nil {
			return s, err
		}
	}
	id, err := n.settingsOf(name)
	if errors.Is(err, client.ErrNotFound) && n.wanted.wants(name) {
		h, oerr := n.open(name)
		if oerr != nil {
			return s, oerr
		}
		id, err = h.id, nil
	}
	if err != nil {
		return s, err
	}
	if n.draining.Load() {
		return s, client.ErrDraining
	}
	catalog := n.held(catalogKeyspace).ks
	for _, each := range allSettings() {
		text, named := each.of(&change)
		if !named {
			continue
		}
		if text == "" {
			_, err = catalog.Delete(ctx, settingKey(id, each.name), nil)
		} else {
			_, err = catalog.Put(ctx, settingKey(id, each.name), []byte(text), nil)
		}
		if err != nil {
			return s, fmt.Errorf("set %s of keyspace %s: %w", each.name, name, err)
		}
	}
	n.linkMu.Lock()
	if h := n.held(id.Name); h != nil && h.id == id {
		n.applySettings(time.Now(), h) // now, not when the watch comes to it
	}
	n.linkMu.Unlock()
	return n.readSettings(ctx, id)
}

// forgetSettings deletes those of a life that has ended.
func (n *Node) forgetSettings(ctx context.Context, id keyspaceID) error {
	for _, each := range allSettings() {
		if _, err := n.held(catalogKeyspace).ks.Delete(ctx, settingKey(id, each.name), nil); err != nil {
			return fmt.Errorf("delete the settings of keyspace %s: %w", id.Name, err)
		}
	}
	return nil
}
