package drift

import (
	"math"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"

	driftv1 "sluice/proto/sluice/drift/v1"
)

// maxEmbeddings is how many embeddings are learnt of one version. While it learns, each takes up to 4 MB.
const maxEmbeddings = 8

// learner gathers the first values of features that have no reference. It is not safe for concurrent use.
type learner struct {
	want    int
	rows    int
	columns map[string]*Column
	known   map[string]bool // features of the reference that calls have had
	embeds  int             // columns of rows
}

func newLearner(want int) *learner {
	return &learner{want: want, columns: make(map[string]*Column), known: make(map[string]bool)}
}

// learn takes the values of one call as far as they are not known already, and reports that there are enough. It counts from the
// first call on that has something unknown.
func (l *learner) learn(values []value) bool {
	if l.want == 0 || l.rows >= l.want || l.rows == 0 && !slices.ContainsFunc(values, func(v value) bool { return v.at < 0 }) {
		return false
	}
	l.rows++
	for _, v := range values {
		if v.at >= 0 {
			l.known[v.feature] = true
			continue
		}
		c := l.columns[v.feature]
		if c == nil {
			if len(l.columns) >= MaxFeatures || v.wide != nil && l.embeds >= maxEmbeddings {
				continue
			}
			if v.wide != nil {
				l.embeds++
			}
			c = new(Column)
			l.columns[v.feature] = c
		}
		switch {
		case v.wide != nil:
			c.row(v.wide)
		case v.text != nil:
			c.Category(string(v.text))
		case v.class && !math.IsNaN(v.number):
			c.Category(strconv.Itoa(int(v.number)))
		default:
			c.Number(v.number)
		}
	}
	return l.rows == l.want
}

// features are those that could be learnt, and are not known. It takes a while for embeddings, and may run without the
// lock of learn once that has reported that there are enough: then learn changes nothing any more.
func (l *learner) features(known *driftv1.Reference) []*driftv1.Feature {
	has := make(map[string]bool)
	for _, f := range known.GetFeatures() {
		has[f.GetName()] = true
	}
	var all []*driftv1.Feature
	for name, c := range l.columns {
		if has[name] {
			continue
		}
		if f, ok := c.Feature(name); ok {
			f.Learnt, f.Absent = true, uint64(l.rows-c.seen())
			hideNames(f)
			all = append(all, f)
		}
	}
	sortFeatures(all)
	return all
}

// hideNames leaves hashes of the strings that callers have sent.
func hideNames(f *driftv1.Feature) {
	c := f.GetCategories()
	for _, name := range c.GetNames() {
		c.Hashes = append(c.Hashes, xxhash.Sum64String(name))
	}
	if c != nil {
		c.Names = nil
	}
}

// stale reports whether a feature was learnt by a name that no call uses any more.
func (l *learner) stale(f *driftv1.Feature) bool {
	return f.GetLearnt() && !l.known[f.GetName()] && l.columns[f.GetName()] == nil
}
