package drift

import (
	"math"
	"slices"
	"strconv"

	"sluice/proto/inference/tensor"
	"sluice/telemetry/drift/stat"
)

// Bounds of what is looked at in one call.
const (
	// maxColumns is the most columns of a tensor that are looked at one by one; of wider ones, summaries and
	// projections are.
	maxColumns = 64
	// maxWidth is the widest row that is looked at at all.
	maxWidth = 1 << 20
	// maxTensors is the most different tensors of one version, and projections how many random directions
	// there are.
	maxTensors  = 64
	projections = 16
)

// value is what one call says of one feature.
type value struct {
	feature string
	at      int // in the reference; -1 if it is not there
	number  float64
	text    []byte // of a category; then number means nothing
}

// layout says what is looked at in a tensor, and by which names. It is made when a tensor is first seen, so that
// names are not put together for every call.
type layout struct {
	width      int
	names      []string // of columns, or of summaries
	directions stat.Directions
	room       []float64
	ref        *reference // by which at was looked up
	at         []int      // where names are in the reference, -1 if they are not
}

// observer turns tensors into values. It belongs to one goroutine.
type observer struct {
	columns map[string][]string // names of columns, by tensor
	layouts map[string]*layout  // by side and tensor
	ref     *reference
	values  []value
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
	key := side + t.Name
	if l := o.layouts[key]; l != nil && l.width == width {
		if l.ref != o.ref {
			l.find(o.ref)
		}
		return l
	} else if l == nil && (len(o.layouts) >= maxTensors || len(key) > maxNameBytes-32) {
		return nil
	}
	l := &layout{width: width, room: make([]float64, width)}
	text := t.Datatype == tensor.Bytes
	switch {
	case side != "" && width > 1 && !text:
		l.names = []string{key + ".class", key + ".top1", key + ".margin", key + ".entropy"}
	case width > maxColumns && text:
		l.names = []string{key} // the first string has to do
	case width > maxColumns:
		l.names = summaryNames(key)
		l.directions = stat.NewDirections(projections, width)
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

// summaryNames are the features of a tensor that is too wide to look at column by column.
func summaryNames(tensor string) []string {
	names := []string{tensor + ".mean", tensor + ".sd", tensor + ".zeros", tensor + ".norm"}
	for i := range projections {
		names = append(names, tensor+".projection"+strconv.Itoa(i))
	}
	return names
}

func (o *observer) texts(l *layout, t *tensor.Tensor, row int) {
	texts := t.Strings()[row*l.width:]
	for i, name := range l.names {
		o.values = append(o.values, value{feature: name, at: l.at[i], text: texts[i]})
	}
}

func (o *observer) numbers(l *layout, t *tensor.Tensor, row int) {
	l.room = l.room[:l.width]
	t.Floats(l.room, row*l.width)
	for i, name := range l.names {
		o.values = append(o.values, value{feature: name, at: l.at[i], number: l.room[i]})
	}
}

// summaries are those of a row that is too wide to look at column by column.
func (o *observer) summaries(l *layout, t *tensor.Tensor, row int) {
	l.room = l.room[:l.width]
	t.Floats(l.room, row*l.width)
	var sum, square, zeros float64
	for _, v := range l.room {
		sum += v
		square += v * v
		if v == 0 {
			zeros++
		}
	}
	n := float64(l.width)
	mean := sum / n
	numbers := []float64{mean, math.Sqrt(max(0, square/n-mean*mean)), zeros / n, math.Sqrt(square)}
	numbers = l.directions.Project(numbers, l.room)
	for i, name := range l.names {
		o.values = append(o.values, value{feature: name, at: l.at[i], number: numbers[i]})
	}
}

// scores are the class with the highest score, its probability, how far it is ahead of the next, and the entropy
// in nats. Scores that are no probabilities are taken for logits.
func (o *observer) scores(l *layout, t *tensor.Tensor, row int) {
	l.room = l.room[:l.width]
	t.Floats(l.room, row*l.width)
	if !areProbabilities(l.room) {
		softmax(l.room)
	}
	class, top, second, entropy := 0, math.Inf(-1), math.Inf(-1), 0.0
	for i, p := range l.room {
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
	numbers := []float64{float64(class), top, top - second, entropy}
	if slices.ContainsFunc(l.room, math.IsNaN) {
		for i := range numbers {
			numbers[i] = math.NaN()
		}
	}
	o.values = append(o.values, value{feature: l.names[0], at: l.at[0], number: numbers[0], text: className(numbers[0])})
	for i, name := range l.names[1:] {
		o.values = append(o.values, value{feature: name, at: l.at[i+1], number: numbers[i+1]})
	}
}

// className makes a class a category; that of nothing has no name.
func className(class float64) []byte {
	if math.IsNaN(class) {
		return nil
	}
	return strconv.AppendInt(nil, int64(class), 10)
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
