package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestScale(t *testing.T) {
	s := newScale(Axis{Log: true}, []float64{0.003, 0, 20})
	if s.lo != 0.001 || s.hi != 100 || math.Abs(s.at(0.1)-0.4) > 1e-9 {
		t.Errorf("log scale from %g to %g, 0.1 at %g", s.lo, s.hi, s.at(0.1))
	}
	s = newScale(Axis{}, []float64{3, 47})
	if want := []float64{0, 10, 20, 30, 40, 50}; !slices.Equal(s.ticks, want) || math.Signbit(s.ticks[0]) {
		t.Errorf("ticks %v, want %v", s.ticks, want)
	}
}

func TestSVGIsXML(t *testing.T) {
	c := Chart{
		Title: "a < b", X: Axis{Label: "nodes", Log: true, Format: Count}, Y: Axis{Label: "time", Log: true, Format: Seconds},
		Series: []Series{{Name: "p50", Dots: true, Points: []Point{{3, .001}, {10_000, .004}}}, {Name: "&", Steps: true}},
	}
	b := Bars{Title: "bytes", Parts: []string{"op", "ihave"}, Rows: []Bar{{"steady", []float64{3, 4}}}, X: Axis{Format: Bytes}}
	for _, w := range []interface{ WriteSVG(io.Writer) error }{&c, &b, &Chart{}, &Bars{}} {
		var buf bytes.Buffer
		if err := w.WriteSVG(&buf); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(&buf)
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%T: %v", w, err)
			}
		}
	}
	var buf strings.Builder
	_ = c.WriteSVG(&buf)
	if strings.Contains(buf.String(), "NaN") {
		t.Error("a coordinate is no number")
	}
}

func TestFormats(t *testing.T) {
	for got, want := range map[string]string{
		Seconds(0.0015): "1.5 ms", Seconds(1e-5): "10 µs", Seconds(10): "10 s", Seconds(1000): "1000 s",
		Count(10_000): "10,000", Count(30): "30", Bytes(2e6): "2 MB",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
