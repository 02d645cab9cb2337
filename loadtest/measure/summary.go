package measure

import "slices"

// A Row is the runs of one case and one target together.
type Row struct {
	Case    string
	X       float64
	Target  string
	Runs    int
	Metrics []Metric           // medians, in the order in which runs noted them
	Ratio   map[string]float64 // median of the ratios to the floor's run of the same number
}

// Get returns a median.
func (r Row) Get(name string) (float64, bool) {
	return (&Run{Metrics: r.Metrics}).Get(name)
}

// Summarize groups the runs by case and target, in the order of their first
// appearance. Where a floor was run alternately, ratios compare neighbours.
func (r *Report) Summarize(floor string) []Row {
	type key struct{ c, t string }
	groups := map[key][]*Run{}
	var order []key
	for _, run := range r.Runs {
		k := key{run.Case, run.Target}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], run)
	}
	var rows []Row
	for _, k := range order {
		runs := groups[k]
		row := Row{Case: k.c, X: runs[0].X, Target: k.t, Runs: len(runs), Ratio: map[string]float64{}}
		for _, m := range names(runs) {
			var values, ratios []float64
			for _, run := range runs {
				v, ok := run.Get(m.Name)
				if !ok {
					continue
				}
				values = append(values, v)
				for _, f := range groups[key{k.c, floor}] {
					if base, ok := f.Get(m.Name); ok && f.Number == run.Number && base != 0 && k.t != floor {
						ratios = append(ratios, v/base)
					}
				}
			}
			row.Metrics = append(row.Metrics, Metric{m.Name, Median(values), m.Unit})
			if len(ratios) > 0 {
				row.Ratio[m.Name] = Median(ratios)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// names are the metrics that any of the runs has.
func names(runs []*Run) []Metric {
	var all []Metric
	for _, run := range runs {
		for _, m := range run.Metrics {
			if !slices.ContainsFunc(all, func(o Metric) bool { return o.Name == m.Name }) {
				all = append(all, m)
			}
		}
	}
	return all
}

// Median of values; 0 if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	if len(v)%2 == 0 {
		return (v[mid-1] + v[mid]) / 2
	}
	return v[mid]
}
