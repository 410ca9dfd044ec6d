package plot

import "io"

// A Bar is one row of Bars: a name, and a value for each part.
type Bar struct {
	Name  string
	Parts []float64
}

// Bars are rows of stacked parts from left to right.
type Bars struct {
	Title, Note string
	X           Axis // not logarithmic
	Parts       []string
	Rows        []Bar
}

const (
	rowHeight = 26
	nameWidth = 190
)

// WriteSVG draws b.
func (b *Bars) WriteSVG(w io.Writer) error {
	var totals []float64
	for _, r := range b.Rows {
		sum := 0.0
		for _, v := range r.Parts {
			sum += v
		}
		totals = append(totals, sum)
	}
	b.X.Log = false
	x := newScale(b.X, totals)
	h := top + rowHeight*len(b.Rows) + bottom
	span := float64(width - nameWidth - right)
	px := func(v float64) float64 { return nameWidth + span*x.at(v) }
	foot := float64(top + rowHeight*len(b.Rows))
	out := &canvas{}
	out.head(width, max(h, top+20*len(b.Parts)+bottom), b.Title, b.Note)
	for _, v := range x.ticks {
		out.line(px(v), top, px(v), foot, gridStyle)
		out.text(px(v), foot+18, "middle", "", x.format(v))
	}
	for i, r := range b.Rows {
		y := float64(top + rowHeight*i)
		out.text(nameWidth-8, y+rowHeight/2+4, "end", "", r.Name)
		at := 0.0
		for k, v := range r.Parts {
			if v > 0 {
				out.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>`, px(at), y+4, px(at+v)-px(at), rowHeight-8, colours[k%len(colours)])
			}
			at += v
		}
	}
	out.line(nameWidth, top, nameWidth, foot, `stroke="#444444"`)
	out.text(nameWidth+span/2, foot+42, "middle", "", b.X.Label)
	for k, name := range b.Parts {
		y := float64(top + 2 + 20*k)
		out.add(`<rect x="%d" y="%.1f" width="14" height="14" fill="%s"/>`, width-right+20, y, colours[k%len(colours)])
		out.text(width-right+42, y+11, "start", "", name)
	}
	return out.write(w)
}
