package drift

import (
	"math"
	"slices"
	"strconv"

	"sluice/proto/inference/tensor"
)

// Bounds of what is looked at in one call.
const (
	// maxColumns is the most columns of a tensor that are looked at one by one; of wider ones, summaries and
	// projections are.
	maxColumns = 64
	// maxWidth is the widest row that is looked at at all.
	maxWidth = 1 << 20
	// maxTensors is the most different tensors of one version.
	maxTensors = 64
)

// value is what one call says of one feature.
type value struct {
	feature string
	at      int // in the reference; -1 if it is not there
	number  float64
	class   bool      // the number is that of a class, so its digits are a category as well
	text    []byte    // of a category; then number means nothing
	wide    *embedded // of a whole row; then neither does
}

// layout says what is looked at in a tensor, and by which names. It is made when a tensor is first seen, so that
// names are not put together for every call.
type layout struct {
	width    int
	text     bool      // strings, not numbers
	names    []string  // of columns, or of summaries
	lens     *lens     // of wide rows
	numbers  []float64 // summaries
	row      []float64 // what is embedded, unless it is too wide for that
	embedded embedded
	ref      *reference // by which at was looked up
	at       []int      // where names are in the reference, -1 if they are not
}

// observer turns tensors into values. It belongs to one goroutine.
type observer struct {
	columns map[string][]string // names of columns, by tensor
	layouts map[string]*layout  // by side and tensor
	ref     *reference
	values  []value
	room    []float64 // of the row that is looked at
}

func newObserver(columns map[string][]string) *observer {
	return &observer{columns: columns, layouts: make(map[string]*layout)}
}

// look returns the values of one row of a call, chosen by pick: rows of one call are too much alike to count as
// several samples. ref, if there is one, says where features are counted. What is returned is valid until the
// next look.
func (o *observer) look(inputs, outputs []tensor.Tensor, ref *reference, pick uint64) []value {
	o.ref = ref
	o.values = o.values[:0]
	for i := range inputs {
		o.input(&inputs[i], pick)
	}
	for i := range outputs {
		o.output(&outputs[i], pick)
	}
	return o.values
}

func (o *observer) input(t *tensor.Tensor, pick uint64) {
	row, width := rowOf(t, len(o.columns[t.Name]), pick)
	if width == 0 {
		return
	}
	l := o.layout("", t, width)
	switch {
	case l == nil:
	case t.Datatype == tensor.Bytes:
		o.texts(l, t, row)
	case width > maxColumns:
		o.summaries(l, t, row)
	default:
		o.numbers(l, t, row)
	}
}

// output looks at an answer: a single number or string as such, and more numbers as the scores of classes.
func (o *observer) output(t *tensor.Tensor, pick uint64) {
	row, width := rowOf(t, 0, pick)
	if width == 0 {
		return
	}
	l := o.layout(outputPrefix, t, width)
	switch {
	case l == nil:
	case t.Datatype == tensor.Bytes:
		o.texts(l, t, row)
	case width == 1:
		o.numbers(l, t, row)
	default:
		o.scores(l, t, row)
	}
}

// outputPrefix begins the names of answers' features.
const outputPrefix = "output."

// rowOf returns which row of a tensor to look at, and how many elements it has, 0 if there is nothing to look at.
func rowOf(t *tensor.Tensor, columns int, pick uint64) (row, width int) {
	rows, width := t.Rows(columns)
	if rows == 0 || width > maxWidth {
		return 0, 0
	}
	return int(pick % uint64(rows)), width
}

// layout returns what is looked at in a tensor, nil if there are too many different ones.
func (o *observer) layout(side string, t *tensor.Tensor, width int) *layout {
	key, text := side+t.Name, t.Datatype == tensor.Bytes
	old := o.layouts[key]
	switch {
	case old != nil && old.width == width && old.text == text:
		if old.ref != o.ref {
			old.find(o.ref)
		}
		return old
	case old == nil && (len(o.layouts) >= maxTensors || len(key) > maxNameBytes-32):
		return nil
	}
	l := &layout{width: width, text: text}
	if width > maxColumns && !text {
		l.lens = newLens(width)
		l.embedded.waves = l.lens.waves
	}
	switch {
	case side != "" && width > 1 && !text:
		l.names = []string{key + ".class", key + ".top1", key + ".margin", key + ".entropy"}
		if l.lens != nil {
			l.names = append(l.names, key+wholeRow)
		}
	case width > maxColumns && text:
		l.names = []string{key} // the first string has to do
	case width > maxColumns:
		l.names = summaryNames(key)
	default:
		l.names = columnNames(key, width, o.columns[key])
	}
	l.find(o.ref)
	o.layouts[key] = l
	return l
}

// find looks up where the features are in a reference.
func (l *layout) find(ref *reference) {
	l.ref, l.at = ref, make([]int, len(l.names))
	for i, name := range l.names {
		l.at[i] = -1
		if ref == nil {
			continue
		}
		if at, ok := ref.byName[name]; ok {
			l.at[i] = at
		}
	}
}

// columnNames are the route's names as far as it has them, else the tensor's name with the column's number.
func columnNames(tensor string, width int, given []string) []string {
	if width == 1 && len(given) == 0 {
		return []string{tensor}
	}
	names := make([]string, width)
	for i := range names {
		if i < len(given) {
			names[i] = given[i]
			continue
		}
		names[i] = tensor + "[" + strconv.Itoa(i) + "]"
	}
	return names
}

// wholeRow ends the name of the feature that is a whole row, of tensors that are too wide to look at column by column.
const wholeRow = ".embedding"

// summaryNames are the features of a tensor that is too wide to look at column by column.
func summaryNames(tensor string) []string {
	names := []string{tensor + ".mean", tensor + ".sd", tensor + ".zeros", tensor + ".norm"}
	for i := range projections {
		names = append(names, tensor+".projection"+strconv.Itoa(i))
	}
	return append(names, tensor+wholeRow)
}

func (o *observer) texts(l *layout, t *tensor.Tensor, row int) {
	texts := t.Strings()[row*l.width:]
	for i, name := range l.names {
		o.values = append(o.values, value{feature: name, at: l.at[i], text: texts[i]})
	}
}

func (o *observer) numbers(l *layout, t *tensor.Tensor, row int) {
	numbers := o.floats(t, row, l.width)
	for i, name := range l.names {
		o.values = append(o.values, value{feature: name, at: l.at[i], number: numbers[i]})
	}
}

// floats reads a row, until the next one is read.
func (o *observer) floats(t *tensor.Tensor, row, width int) []float64 {
	o.room = slices.Grow(o.room[:0], width)[:width]
	t.Floats(o.room, row*width)
	return o.room
}

// summaries are those of a row that is too wide to look at column by column.
func (o *observer) summaries(l *layout, t *tensor.Tensor, row int) {
	x := o.floats(t, row, l.width)
	var sum, square, zeros float64
	for _, v := range x {
		sum += v
		square += v * v
		if v == 0 {
			zeros++
		}
	}
	n := float64(l.width)
	mean := sum / n
	l.numbers = append(l.numbers[:0], mean, math.Sqrt(max(0, square/n-mean*mean)), zeros/n, math.Sqrt(square))
	own := len(l.numbers)
	l.numbers = l.lens.project(l.numbers, x)
	for i, v := range l.numbers {
		o.values = append(o.values, value{feature: l.names[i], at: l.at[i], number: v})
	}
	o.whole(l, x, l.numbers[own:])
}

// whole is a row as such, or its projections if it is too wide for that.
func (o *observer) whole(l *layout, row, projected []float64) {
	if l.embedded.row = projected; l.width <= maxEmbedded {
		l.row = append(l.row[:0], row...)
		l.embedded.row = l.row
	}
	last := len(l.names) - 1
	o.values = append(o.values, value{feature: l.names[last], at: l.at[last], wide: &l.embedded})
}

// scores are the class with the highest score, its probability, how far it is ahead of the next, and the entropy
// in nats. Scores that are no probabilities are taken for logits.
func (o *observer) scores(l *layout, t *tensor.Tensor, row int) {
	x := o.floats(t, row, l.width)
	if l.lens != nil { // before they become probabilities: they may be no scores, but what the model is for
		l.numbers = l.lens.project(l.numbers[:0], x)
		o.whole(l, x, l.numbers)
	}
	if !areProbabilities(x) {
		softmax(x)
	}
	class, top, second, entropy := 0, math.Inf(-1), math.Inf(-1), 0.0
	for i, p := range x {
		switch {
		case p > top:
			class, top, second = i, p, top
		case p > second:
			second = p
		}
		if p > 0 {
			entropy -= p * math.Log(p)
		}
	}
	numbers := [...]float64{float64(class), top, top - second, entropy}
	if slices.ContainsFunc(x, math.IsNaN) {
		for i := range numbers {
			numbers[i] = math.NaN()
		}
	}
	for i, v := range numbers {
		o.values = append(o.values, value{feature: l.names[i], at: l.at[i], number: v, class: i == 0})
	}
}

func areProbabilities(scores []float64) bool {
	var sum float64
	for _, p := range scores {
		if !(p >= 0 && p <= 1) {
			return false
		}
		sum += p
	}
	return math.Abs(sum-1) < 0.01
}

func softmax(scores []float64) {
	top := slices.Max(scores)
	var sum float64
	for i, v := range scores {
		scores[i] = math.Exp(v - top)
		sum += scores[i]
	}
	for i := range scores {
		scores[i] /= sum
	}
}
