// Package plot draws line charts and stacked bars as SVG: as much as the figures
// of the simulations need, and nothing that would make them differ from run to
// run.
package plot

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Layout of a chart, in pixels.
const (
	width, height            = 860, 520
	left, right, top, bottom = 84, 232, 64, 62
	plotWidth, plotHeight    = width - left - right, height - top - bottom
)

// Colours of series, which can be told apart by the colour blind (Okabe and Ito 2008).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000", "#8c6d31"}

// An Axis is one direction of a chart.
type Axis struct {
	Label    string
	Log      bool
	Min, Max float64              // 0, 0: what the points need
	Format   func(float64) string // of a tick; default %g
}

// A Point is one point of a series.
type Point struct{ X, Y float64 }

// A Series is one line.
type Series struct {
	Name   string
	Colour int  // index of a colour
	Dash   bool // a second line of the same colour
	Wide   bool // still seen where another one lies on it
	Dots   bool // mark the points
	Steps  bool // hold each value until the next point
	Points []Point
}

// A Chart is lines over two axes.
type Chart struct {
	Title, Note string
	X, Y        Axis
	Series      []Series
}

// Seconds is a tick of a time axis in seconds.
func Seconds(v float64) string {
	switch d := time.Duration(math.Round(v * 1e9)); {
	case d == 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%g µs", v*1e6)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", v*1e3)
	case d < 100*time.Second:
		return fmt.Sprintf("%.3g s", v)
	default:
		return fmt.Sprintf("%.4g s", v)
	}
}

// Count is a tick of an axis of numbers: 10,000.
func Count(v float64) string {
	if v < 1000 || v != math.Trunc(v) {
		return fmt.Sprintf("%g", v)
	}
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Bytes is a tick of an axis of bytes.
func Bytes(v float64) string {
	switch {
	case v >= 1e9:
		return fmt.Sprintf("%g GB", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%g MB", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%g kB", v/1e3)
	}
	return fmt.Sprintf("%g B", v)
}

// scale maps values of an axis to 0..1.
type scale struct {
	axis   Axis
	lo, hi float64
	ticks  []float64
	minor  []float64
}

func newScale(a Axis, values []float64) scale {
	lo, hi := a.Min, a.Max
	if lo == 0 && hi == 0 {
		lo, hi = math.Inf(1), math.Inf(-1)
		for _, v := range values {
			if a.Log && v <= 0 {
				continue
			}
			lo, hi = min(lo, v), max(hi, v)
		}
		if lo > hi {
			lo, hi = 1, 10
		}
		if !a.Log {
			lo = min(lo, 0)
		}
	}
	s := scale{axis: a, lo: lo, hi: hi}
	if a.Log {
		from, to := math.Floor(math.Log10(lo)+1e-9), math.Ceil(math.Log10(hi)-1e-9)
		if to <= from {
			to = from + 1
		}
		if a.Min == 0 && a.Max == 0 {
			s.lo, s.hi = math.Pow(10, from), math.Pow(10, to)
		}
		for e := from; e <= to; e++ {
			for k := 1.0; k < 10; k++ {
				v := k * math.Pow(10, e)
				if v < s.lo*(1-1e-9) || v > s.hi*(1+1e-9) {
					continue
				}
				if k == 1 {
					s.ticks = append(s.ticks, v)
				} else {
					s.minor = append(s.minor, v)
				}
			}
		}
		return s
	}
	if hi <= lo {
		hi = lo + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/4)))
	for _, k := range []float64{1, 2, 5, 10} {
		if (hi-lo)/(k*step) <= 7 {
			step *= k
			break
		}
	}
	if a.Max == 0 {
		s.hi = step * math.Ceil(hi/step-1e-9)
	}
	for k := math.Ceil(lo/step - 1e-9); k*step <= s.hi+step*1e-6; k++ {
		s.ticks = append(s.ticks, k*step+0) // and never -0
	}
	return s
}

func (s *scale) at(v float64) float64 {
	if s.axis.Log {
		v = max(v, s.lo)
		return math.Log(v/s.lo) / math.Log(s.hi/s.lo)
	}
	return (v - s.lo) / (s.hi - s.lo)
}

func (s *scale) format(v float64) string {
	if s.axis.Format != nil {
		return s.axis.Format(v)
	}
	return fmt.Sprintf("%g", v)
}

// canvas gathers the elements of an image.
type canvas struct{ strings.Builder }

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(&c.Builder, format+"\n", args...) }

func (c *canvas) line(x1, y1, x2, y2 float64, style string) {
	c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`, x1, y1, x2, y2, style)
}

func (c *canvas) text(x, y float64, anchor, style, s string) {
	c.add(`<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>`, x, y, anchor, style, escaper.Replace(s))
}

func (c *canvas) head(w, h int, title, note string) {
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="Helvetica, Arial, sans-serif" font-size="12">`, w, h, w, h)
	c.add(`<rect width="%d" height="%d" fill="#ffffff"/>`, w, h)
	c.text(16, 26, "start", `font-size="16" font-weight="bold"`, title)
	c.text(16, 45, "start", `fill="#555555"`, note)
}

func (c *canvas) write(w io.Writer) error {
	c.add("</svg>")
	_, err := io.WriteString(w, c.String())
	return err
}

const (
	gridStyle  = `stroke="#dddddd" stroke-width="1"`
	minorStyle = `stroke="#f2f2f2" stroke-width="1"`
)

// WriteSVG draws c.
func (c *Chart) WriteSVG(w io.Writer) error {
	var xs, ys []float64
	for _, s := range c.Series {
		for _, p := range s.Points {
			xs, ys = append(xs, p.X), append(ys, p.Y)
		}
	}
	x, y := newScale(c.X, xs), newScale(c.Y, ys)
	px := func(v float64) float64 { return left + plotWidth*x.at(v) }
	py := func(v float64) float64 { return top + plotHeight*(1-y.at(v)) }
	out := &canvas{}
	out.head(width, height, c.Title, c.Note)
	for _, v := range x.minor {
		out.line(px(v), top, px(v), top+plotHeight, minorStyle)
	}
	for _, v := range y.minor {
		out.line(left, py(v), left+plotWidth, py(v), minorStyle)
	}
	for _, v := range x.ticks {
		out.line(px(v), top, px(v), top+plotHeight, gridStyle)
		out.text(px(v), top+plotHeight+18, "middle", "", x.format(v))
	}
	for _, v := range y.ticks {
		out.line(left, py(v), left+plotWidth, py(v), gridStyle)
		out.text(left-8, py(v)+4, "end", "", y.format(v))
	}
	out.add(`<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#444444"/>`, left, top, plotWidth, plotHeight)
	out.text(left+plotWidth/2, height-18, "middle", "", c.X.Label)
	out.add(`<text transform="translate(20 %d) rotate(-90)" text-anchor="middle">%s</text>`, top+plotHeight/2, escaper.Replace(c.Y.Label))
	for i, s := range c.Series {
		style := fmt.Sprintf(`stroke="%s" stroke-width="2" fill="none"`, colours[s.Colour%len(colours)])
		if s.Wide {
			style = fmt.Sprintf(`stroke="%s" stroke-width="6" stroke-opacity="0.5" fill="none"`, colours[s.Colour%len(colours)])
		}
		if s.Dash {
			style += ` stroke-dasharray="6 4"`
		}
		var path strings.Builder
		for j, p := range s.Points {
			switch {
			case j == 0:
				fmt.Fprintf(&path, "M%.1f %.1f", px(p.X), py(p.Y))
			case s.Steps:
				fmt.Fprintf(&path, "H%.1fV%.1f", px(p.X), py(p.Y))
			default:
				fmt.Fprintf(&path, "L%.1f %.1f", px(p.X), py(p.Y))
			}
			if s.Dots {
				out.add(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, px(p.X), py(p.Y), colours[s.Colour%len(colours)])
			}
		}
		out.add(`<path d="%s" %s/>`, path.String(), style)
		ly := float64(top + 10 + 20*i)
		out.line(left+plotWidth+14, ly, left+plotWidth+42, ly, style)
		out.text(left+plotWidth+48, ly+4, "start", "", s.Name)
	}
	return out.write(w)
}
