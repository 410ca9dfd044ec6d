package mesh

import "time"

// fullPace is from one try to the next of a peer that has as many links as it allows.
const fullPace = 10 * time.Second

// Want names the peers to which this node wants a link from now on; others, and unknown ones, do no harm.
// Until it is called, this node wants one to everybody. Each side tells the other on the link, and a link that
// neither has wanted for LinkSurplus is closed; inbound ones are taken whatever we want. A member to which no link is
// wanted is not suspect for having none.
func (m *Mesh) Want(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roster.setWant(names)
	for name, l := range m.byName {
		l.want(m.roster.wants(name))
	}
}

func (r *roster) setWant(names []string) {
	r.want = make(map[string]struct{}, len(names))
	for _, name := range names {
		r.want[name] = struct{}{}
	}
}

// wants says whether this node wants a link to that peer.
func (r *roster) wants(name string) bool {
	if r.want == nil {
		return true
	}
	_, ok := r.want[name]
	return ok
}

// peerWants records what the peer said on its link.
func (r *roster) peerWants(name string, yes bool) {
	if rec := r.records[name]; rec != nil && rec.link != nil {
		rec.link.wanted = yes
	}
}

// surplus says since when neither side has wanted the link; zero if one does. A link to a peer that membership does
// not call alive or left is never surplus: it is about to mend that.
func (r *roster) surplus(now time.Time, rec *record) time.Time {
	l := rec.link
	if l.wanted || r.wants(rec.member.Name) || rec.member.Status != StatusAlive && rec.member.Status != StatusLeft {
		l.surplus = time.Time{}
	} else if l.surplus.IsZero() {
		l.surplus = now
	}
	return l.surplus
}

// spare is the peer whose link has been surplus for longest, "" if there is none.
func (r *roster) spare(now time.Time) string {
	var name string
	var since time.Time
	for _, rec := range r.order {
		if rec.link == nil {
			continue
		}
		if at := r.surplus(now, rec); !at.IsZero() && (name == "" || at.Before(since)) {
			name, since = rec.member.Name, at
		}
	}
	return name
}
