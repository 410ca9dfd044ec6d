package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// The forms of output.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatRaw   = "raw"
)

func checkFormat(f string) error {
	switch f {
	case formatTable, formatJSON, formatRaw:
		return nil
	}
	return usagef("-o %q: the forms of output are table, json and raw", f)
}

// printJSON writes v as one line.
func (a *app) printJSON(v any) error { return writeJSON(a.stdout, v) }

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// tableBatch bounds how many rows are held back to align their columns.
const tableBatch = 256

// A table writes rows in aligned columns, a batch at a time, so that a long
// listing streams.
type table struct {
	w    *tabwriter.Writer
	rows int
}

func newTable(w io.Writer, header ...string) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(strings.ReplaceAll(c, "\t", " "))
		if c == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
	if t.rows++; t.rows%tableBatch == 0 {
		t.w.Flush()
	}
}

func (t *table) end() error { return t.w.Flush() }

// buffered lends fn a buffered stdout.
func (a *app) buffered(fn func(w *bufio.Writer) error) error {
	w := bufio.NewWriterSize(a.stdout, 64<<10)
	err := fn(w)
	if ferr := w.Flush(); err == nil {
		err = ferr
	}
	return err
}

// printable replaces what could move a terminal's cursor or break a line.
func printable(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		i += n
	}
	return b.String()
}

// shorten cuts a value to fit a line of a listing.
func shorten(v []byte) string {
	const limit = 60
	s := printable(string(v[:min(len(v), 4*limit)]))
	runes := []rune(s)
	if len(runes) > limit || len(v) > 4*limit {
		s = string(runes[:min(len(runes), limit-3)]) + "..."
	}
	return s
}

// jsonKey is a key as text, or as bytes if it is not UTF-8.
func jsonKey(key string) (text string, b64 []byte) {
	if utf8.ValidString(key) {
		return key, nil
	}
	return "", []byte(key)
}

// stamp is RFC 3339 with milliseconds; empty for the zero time.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// millis is a duration in milliseconds for JSON.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// brief is a duration for people.
func brief(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// thousands is a number for people.
func thousands[N int | int64 | uint64](n N) string {
	digits := count(n)
	var b strings.Builder
	for i, d := range digits {
		if rest := len(digits) - i; i > 0 && rest%3 == 0 && digits[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// size is a number of bytes for people, in three digits or so.
func size(n int64) string {
	if n < 1024 {
		return count(n) + " B"
	}
	x, unit := float64(n), 0
	for x >= 999.5 && unit < 4 {
		x, unit = x/1024, unit+1
	}
	digits := 0
	if x < 10 {
		digits = 1
	}
	return strconv.FormatFloat(x, 'f', digits, 64) + []string{" B", " KiB", " MiB", " GiB", " TiB"}[unit]
}

func count[N int | int64 | uint64](n N) string { return strconv.FormatInt(int64(n), 10) }
