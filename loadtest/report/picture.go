package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"regexp"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/target"
)

// palette is told apart by people who see colours differently too.
var palette = []color.NRGBA{
	{0x1f, 0x6f, 0xb4, 0xff}, {0xd9, 0x6b, 0x0b, 0xff}, {0x1b, 0x8a, 0x5a, 0xff},
	{0x8e, 0x44, 0xad, 0xff}, {0xb0, 0x22, 0x3c, 0xff}, {0x6b, 0x72, 0x80, 0xff},
}

// A line is one curve of a picture.
type line struct {
	name   string
	points plotter.XYs
	colour int  // of the palette
	dashed bool // what is compared with
	marked bool // a dot at each point
}

// A picture is a plot in the making.
type picture struct {
	title, x, y string
	logX, logY  bool
	nines       bool // x is 1/(1-q): label it with quantiles
	fromZero    bool
	wide        bool
	curves      []line
}

// svg draws the picture as an <svg> element. Empty curves are left out; a
// picture without any is empty.
func (p picture) svg() (template.HTML, error) {
	pl := plot.New()
	pl.Title.Text, pl.X.Label.Text, pl.Y.Label.Text = p.title, p.x, p.y
	pl.Title.TextStyle.Font.Size, pl.Title.Padding = 12, 6
	pl.Legend.Top, pl.Legend.Left = true, true
	pl.Legend.TextStyle.Font.Size = 10
	for _, t := range []*text.Style{&pl.Title.TextStyle, &pl.X.Label.TextStyle, &pl.Y.Label.TextStyle,
		&pl.X.Tick.Label, &pl.Y.Tick.Label, &pl.Legend.TextStyle} {
		t.Font.Variant = "Sans"
	}
	pl.X.Tick.Marker, pl.Y.Tick.Marker = plain{}, plain{}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{0xe4}, color.Gray{0xe4}
	pl.Add(grid)
	named := map[string]bool{}
	drawn := false
	for _, c := range p.curves {
		points := p.visible(c.points)
		if len(points) == 0 {
			continue
		}
		l, err := plotter.NewLine(points)
		if err != nil {
			return "", fmt.Errorf("draw %q: %w", p.title, err)
		}
		l.Color, l.Width = palette[c.colour%len(palette)], 1.4
		if c.dashed {
			l.Dashes = []vg.Length{5, 3}
		}
		pl.Add(l)
		if c.marked || len(points) == 1 {
			s, err := plotter.NewScatter(points)
			if err != nil {
				return "", fmt.Errorf("draw %q: %w", p.title, err)
			}
			s.Color, s.Radius, s.Shape = l.Color, 2.4, draw.CircleGlyph{}
			pl.Add(s)
		}
		if !named[c.name] {
			named[c.name] = true
			pl.Legend.Add(c.name, l)
		}
		drawn = true
	}
	if !drawn {
		return "", nil
	}
	p.axes(pl)
	width := 15 * vg.Centimeter
	if p.wide {
		width = 26 * vg.Centimeter
	}
	canvas := vgsvg.New(width, 8.5*vg.Centimeter)
	pl.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", fmt.Errorf("draw %q: %w", p.title, err)
	}
	return inline(b.String()), nil
}

// visible are the points that the axes can show.
func (p picture) visible(points plotter.XYs) plotter.XYs {
	var v plotter.XYs
	for _, xy := range points {
		bad := math.IsNaN(xy.X+xy.Y) || math.IsInf(xy.X+xy.Y, 0)
		if !bad && (!p.logX && !p.nines || xy.X > 0) && (!p.logY || xy.Y > 0) {
			v = append(v, xy)
		}
	}
	return v
}

// axes sets scales and room; it runs after all curves are in.
func (p picture) axes(pl *plot.Plot) {
	if p.nines {
		pl.X.Scale, pl.X.Tick.Marker = plot.LogScale{}, ninesTicks{}
	}
	if p.logX {
		pl.X.Scale, pl.X.Tick.Marker = plot.LogScale{}, shortLog{}
		if pl.X.Min == pl.X.Max {
			pl.X.Min, pl.X.Max = pl.X.Min/2, pl.X.Max*2
		}
	}
	if p.logY {
		pl.Y.Scale, pl.Y.Tick.Marker = plot.LogScale{}, shortLog{}
		pl.Y.Min, pl.Y.Max = math.Pow(10, math.Floor(math.Log10(pl.Y.Min))), math.Pow(10, math.Ceil(math.Log10(pl.Y.Max*1.5)))
	} else {
		if p.fromZero {
			pl.Y.Min = min(0, pl.Y.Min)
		}
		// The legend stands at the top.
		pl.Y.Max += (pl.Y.Max - pl.Y.Min) * 0.25
		if pl.Y.Max == pl.Y.Min {
			pl.Y.Max++
		}
	}
}

// plain marks a linear axis with short numbers.
type plain struct{}

func (plain) Ticks(lo, hi float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10(max(hi-lo, 1e-9))))
	for _, finer := range []float64{0.5, 0.4, 0.5, 0.5, 0.4, 0.5} { // 1, 0.5, 0.2, 0.1, …
		if (hi-lo)/step >= 4 {
			break
		}
		step *= finer
	}
	var ticks []plot.Tick
	for n := math.Ceil(lo / step); n*step <= hi; n++ {
		ticks = append(ticks, plot.Tick{Value: n * step, Label: short(n * step)})
	}
	return ticks
}

// short writes a number without needless zeros.
func short(v float64) string {
	if math.Abs(v) >= 1000 {
		return thousands(int64(math.Round(v)))
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", v), "0"), ".")
}

// shortLog marks the powers of ten.
type shortLog struct{}

func (shortLog) Ticks(lo, hi float64) []plot.Tick {
	var ticks []plot.Tick
	for e := math.Floor(math.Log10(lo)); e <= math.Ceil(math.Log10(hi)); e++ {
		for m := 1.0; m < 10; m++ {
			v := m * math.Pow(10, e)
			t := plot.Tick{Value: v}
			if m == 1 {
				t.Label = short(v)
			}
			if v >= lo && v <= hi {
				ticks = append(ticks, t)
			}
		}
	}
	return ticks
}

// ninesTicks marks quantiles on an axis of 1/(1-q).
type ninesTicks struct{}

func (ninesTicks) Ticks(lo, hi float64) []plot.Tick {
	var ticks []plot.Tick
	for _, t := range []plot.Tick{{Value: 1, Label: "0 %"}, {Value: 2, Label: "50 %"}, {Value: 10, Label: "90 %"},
		{Value: 100, Label: "99 %"}, {Value: 1000, Label: "99.9 %"}, {Value: 10_000, Label: "99.99 %"}, {Value: 100_000, Label: "99.999 %"}} {
		if t.Value >= lo && t.Value <= hi {
			ticks = append(ticks, t)
		}
	}
	return ticks
}

var svgStart = regexp.MustCompile(`(?s)^.*?<svg`)

// inline cuts what stands before the element in a file of its own, and names
// fonts for those who don't have the first.
func inline(svg string) template.HTML {
	svg = strings.ReplaceAll(svg, "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,sans-serif;")
	return template.HTML(svgStart.ReplaceAllString(svg, "<svg"))
}

// curve is a line of a target; the floor's are dashed.
func curve(name, of string, points plotter.XYs, colour int) line {
	l := line{name: name, points: points, colour: colour}
	if of == target.Floor {
		l.dashed = true
	}
	return l
}

// distributionPictures draws each latency of a case: quantiles of all runs
// together, a curve for each target.
func distributionPictures(name string, runs []*measure.Run) ([]template.HTML, error) {
	var names, targets []string
	merged := map[[2]string]*measure.Histogram{}
	for _, run := range runs {
		if !slices.Contains(targets, run.Target) {
			targets = append(targets, run.Target)
		}
		for _, l := range run.Latencies {
			if !slices.Contains(names, l.Name) {
				names = append(names, l.Name)
			}
			k := [2]string{l.Name, run.Target}
			if merged[k] == nil {
				merged[k] = measure.NewHistogram()
			}
			merged[k].Merge(l.Histogram)
		}
	}
	var pictures []template.HTML
	for _, n := range names {
		p := picture{title: strings.TrimSuffix(name+": "+n, ": "), x: "share of events not slower", y: "ms", nines: true, logY: true}
		for i, t := range targets {
			h := merged[[2]string{n, t}]
			if h != nil {
				p.curves = append(p.curves, curve(t, t, quantiles(h), i))
			}
		}
		svg, err := p.svg()
		if err != nil {
			return nil, err
		}
		if svg != "" {
			pictures = append(pictures, svg)
		}
	}
	return pictures, nil
}

// quantiles are the points of a distribution's curve.
func quantiles(h *measure.Histogram) plotter.XYs {
	if h.Count() == 0 {
		return nil
	}
	var points plotter.XYs
	last := math.Min(math.Max(float64(h.Count()), 10), 100_000)
	for x := 1.0; x <= last; x *= 1.12 {
		points = append(points, plotter.XY{X: x, Y: h.Quantile(1-1/x).Seconds() * 1000})
	}
	return points
}

// seriesPictures draws a case over time, what has one unit in one picture.
func seriesPictures(runs []*measure.Run) ([]template.HTML, error) {
	var units, targets []string
	for _, run := range runs {
		if !slices.Contains(targets, run.Target) {
			targets = append(targets, run.Target)
		}
		for _, s := range run.Series {
			if !slices.Contains(units, s.Unit) {
				units = append(units, s.Unit)
			}
		}
	}
	var pictures []template.HTML
	for _, unit := range units {
		p := picture{x: "seconds", y: unit, fromZero: true, logY: unit == "ms"}
		var names []string
		for _, run := range runs {
			for _, s := range run.Series {
				if s.Unit != unit {
					continue
				}
				if !slices.Contains(names, s.Name) {
					names = append(names, s.Name)
				}
				points := make(plotter.XYs, len(s.Points))
				for i, pt := range s.Points {
					points[i] = plotter.XY{X: pt.T, Y: pt.V}
				}
				label := s.Name
				if len(targets) > 1 {
					label += ", " + run.Target
				}
				colour := slices.Index(names, s.Name)
				p.curves = append(p.curves, curve(label, run.Target, points, colour))
			}
		}
		p.title = strings.Join(names, ", ")
		svg, err := p.svg()
		if err != nil {
			return nil, err
		}
		if svg != "" {
			pictures = append(pictures, svg)
		}
	}
	return pictures, nil
}

// leadPictures draw what the cases of a report say together: how a cost
// grows with the number that they vary.
func leadPictures(r *measure.Report, rows []measure.Row) ([]template.HTML, error) {
	pictures, err := comparedPictures(r)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"CPU per delivery", "RSS per connection", "RSS per further connection", "CPU per publish", "publishes/s", "deliveries/s"} {
		p := picture{title: name, logX: true, fromZero: true, x: "number"}
		curves := map[string]int{}
		points := 0
		for _, row := range rows {
			v, ok := row.Get(name)
			if row.X == 0 || !ok {
				continue
			}
			family := familyOf(row)
			if _, seen := curves[family]; !seen {
				curves[family] = len(p.curves)
				l := curve(family, row.Target, nil, len(p.curves))
				l.marked = true
				p.curves = append(p.curves, l)
			}
			i := curves[family]
			p.curves[i].points = append(p.curves[i].points, plotter.XY{X: row.X, Y: v})
			points = max(points, len(p.curves[i].points))
			for _, m := range row.Metrics {
				if m.Name == name {
					p.y = m.Unit
				}
			}
		}
		if points < 2 {
			continue
		}
		svg, err := p.svg()
		if err != nil {
			return nil, err
		}
		pictures = append(pictures, svg)
	}
	return pictures, nil
}

// comparedPictures draw a series of all cases together.
func comparedPictures(r *measure.Report) ([]template.HTML, error) {
	var pictures []template.HTML
	if len(r.Compare) > 0 {
		p := picture{title: "delay, from the moment of the event", x: "share of events not slower", y: "ms", nines: true, logY: true, wide: true}
		for _, run := range r.Runs {
			for _, l := range run.Latencies {
				p.curves = append(p.curves, line{name: run.Case, colour: slices.Index(cases(r), run.Case), points: quantiles(l.Histogram)})
			}
		}
		svg, err := p.svg()
		if err != nil {
			return nil, err
		}
		if svg != "" {
			pictures = append(pictures, svg)
		}
	}
	for _, name := range r.Compare {
		p := picture{title: name, x: "seconds", fromZero: true, wide: true}
		for _, run := range r.Runs {
			for _, s := range run.Series {
				if s.Name != name {
					continue
				}
				p.y = s.Unit
				l := line{name: run.Case, colour: slices.Index(cases(r), run.Case)}
				for _, pt := range s.Points {
					l.points = append(l.points, plotter.XY{X: pt.T, Y: pt.V})
				}
				p.curves = append(p.curves, l)
			}
		}
		svg, err := p.svg()
		if err != nil {
			return nil, err
		}
		if svg != "" {
			pictures = append(pictures, svg)
		}
	}
	return pictures, nil
}

// familyOf is what the rows of one curve have in common: their case's name
// without its number.
func familyOf(row measure.Row) string {
	words := strings.Fields(row.Case)
	words = slices.DeleteFunc(words, func(w string) bool { return strings.Trim(w, "0123456789,") == "" })
	return strings.Join(words, " ") + ", " + row.Target
}
