package plot

import (
	"fmt"
	"io"
)

// Dots are rows of values on one axis, each part in its colour.
type Dots struct {
	Title, Note string
	X           Axis
	Parts       []string
	Rows        []Bar
}

// WriteSVG draws d.
func (d *Dots) WriteSVG(w io.Writer) error {
	var values []float64
	for _, r := range d.Rows {
		values = append(values, r.Parts...)
	}
	x := newScale(d.X, values)
	span := float64(width - nameWidth - right/2)
	px := func(v float64) float64 { return nameWidth + span*x.at(v) }
	foot := float64(top + rowHeight*len(d.Rows))
	out := &canvas{}
	out.head(width, max(int(foot)+bottom, top+20*len(d.Parts)+bottom), d.Title, d.Note)
	for _, v := range x.minor {
		out.line(px(v), top, px(v), foot, minorStyle)
	}
	for _, v := range x.ticks {
		out.line(px(v), top, px(v), foot, gridStyle)
		out.text(px(v), foot+18, "middle", "", x.format(v))
	}
	for i, r := range d.Rows {
		y := float64(top+rowHeight*i) + rowHeight/2
		out.text(nameWidth-8, y+4, "end", "", r.Name)
		lo, hi := 0.0, 0.0
		for _, v := range r.Parts {
			if v > 0 && (lo == 0 || v < lo) {
				lo = v
			}
			hi = max(hi, v)
		}
		if hi == 0 {
			continue
		}
		out.line(px(lo), y, px(hi), y, `stroke="#bbbbbb" stroke-width="2"`)
		for k, v := range r.Parts {
			if v > 0 {
				out.add(`<circle cx="%.1f" cy="%.1f" r="5" fill="%s"/>`, px(v), y, colours[k%len(colours)])
			}
		}
	}
	out.line(nameWidth, top, nameWidth, foot, `stroke="#444444"`)
	out.text(nameWidth+span/2, foot+42, "middle", "", d.X.Label)
	for k, name := range d.Parts {
		y := float64(top + 8 + 20*k)
		at := float64(width - right/2 + 24)
		out.add(`<circle cx="%.1f" cy="%.1f" r="5" fill="%s"/>`, at, y, colours[k%len(colours)])
		out.add(`<text x="%.1f" y="%.1f">%s</text>`, at+12, y+4, escaper.Replace(fmt.Sprint(name)))
	}
	return out.write(w)
}
