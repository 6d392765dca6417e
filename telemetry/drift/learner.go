package drift

import (
	driftv1 "sluice/proto/sluice/drift/v1"
)

// learner gathers the first values of features that have no reference. It is not safe for concurrent use.
type learner struct {
	want    int
	rows    int
	columns map[string]*Column
}

func newLearner(want int) *learner {
	return &learner{want: want, columns: make(map[string]*Column)}
}

// learn takes the values of one call as far as they are not known already, and reports that there are enough.
func (l *learner) learn(values []value) bool {
	if l.want == 0 || l.rows >= l.want {
		return false
	}
	l.rows++
	for _, v := range values {
		if v.at >= 0 {
			continue
		}
		c := l.columns[v.feature]
		if c == nil {
			if len(l.columns) >= MaxFeatures {
				continue
			}
			c = new(Column)
			l.columns[v.feature] = c
		}
		if v.text != nil {
			c.Category(string(v.text))
		} else {
			c.Number(v.number)
		}
	}
	return l.rows == l.want
}

// features are those that could be learnt, and are not known.
func (l *learner) features(known *driftv1.Reference) []*driftv1.Feature {
	has := make(map[string]bool)
	for _, f := range known.GetFeatures() {
		has[f.GetName()] = true
	}
	var all []*driftv1.Feature
	for name, c := range l.columns {
		for range l.rows - c.seen() {
			c.Missing()
		}
		if f, ok := c.Feature(name); ok && !has[name] {
			f.Learnt = true
			all = append(all, f)
		}
	}
	sortFeatures(all)
	return all
}
