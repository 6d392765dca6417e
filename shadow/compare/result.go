package compare

import "math"

// Difference is in what two answers, or two outputs, differ. Of several, the one that
// comes first here counts: it makes the others meaningless.
type Difference uint8

// The differences.
const (
	None        Difference = iota
	Codes                  // one status is not the other
	Sizes                  // the second answer is so much longer than the first that it was not read
	Unreadable             // an answer is none of the protocol
	Messages               // one stream has more messages
	Missing                // an output of the first answer is not in the second
	Extra                  // and the other way round
	Datatypes              // of an output
	Shapes                 // of an output
	NaNs                   // are in other places
	Values                 // are further apart than the tolerance
	OpaqueBytes            // of answers whose protocol is not known
)

var differences = [...]string{"none", "codes", "sizes", "unreadable", "messages", "missing", "extra", "datatypes", "shapes", "nans",
	"values", "bytes"}

// String returns the difference's name, as metrics and tables show it.
func (d Difference) String() string { return differences[d] }

// worse returns what counts of two differences.
func worse(a, b Difference) Difference {
	if a == None || (b != None && b < a) {
		return b
	}
	return a
}

// Result is how two answers differ.
type Result struct {
	// Difference is the answers' own, or the worst of their outputs'.
	Difference Difference
	// Why says in words what cannot be seen in the numbers; empty if nothing.
	Why string
	// Outputs holds the outputs of the first answer in its order, then those that only
	// the second one has. Ignored ones are not among them. Of a stream's messages, it
	// holds each output once: counts are sums, and errors the largest.
	Outputs []Output
}

// Same reports that nothing differs.
func (r *Result) Same() bool { return r.Difference == None }

// Output is how one output of two answers differs.
type Output struct {
	Name       string
	Datatype   string // of the first answer, as the protocol writes it
	Difference Difference

	// Elements were compared, and Differing of them differ.
	Elements, Differing int
	// MaxAbs is the largest |b-a|, MaxRel the largest |b-a|/|a|, and RMSE the root of
	// the mean of the squares of b-a. An infinity on one side makes them infinite;
	// places with a NaN count for none of them. Of strings they are 0.
	MaxAbs, MaxRel, RMSE float64
	// Cosine is that of the angle between the outputs as vectors of their finite
	// elements; NaN where there is none: strings, a norm of 0, an overflow.
	Cosine float64
	// Excess is the largest error in proportion to what was allowed: above 1 it differs.
	// Where nothing is allowed it is infinite as soon as anything differs.
	Excess float64
	// MaxULP is the largest distance in representable values of the datatype.
	MaxULP uint64

	// Rows are the runs along the last dimension, of at least two floating-point
	// numbers each; 0 if the output has none.
	Rows int
	// Flips are the rows whose largest value is elsewhere, CloseFlips those of them in
	// which the first answer's two largest were less than CloseMargin apart.
	Flips, CloseFlips int
	// TopK is the mean share, over the rows, of the first answer's k largest values
	// that are among the second's k largest; NaN if rows are not longer than k.
	TopK float64

	sums sums
}

// sums are what an output's means are made of, over all messages of an answer.
type sums struct {
	compared          int     // pairs of numbers, those with a NaN left out
	squares           float64 // of the differences
	dot, normA, normB float64 // of the finite pairs; the norms squared
	topK              float64
	topKRows          int
}

// conclude computes the means.
func (o *Output) conclude() {
	s := &o.sums
	if s.compared > 0 {
		o.RMSE = math.Sqrt(s.squares / float64(s.compared))
	}
	if norms := math.Sqrt(s.normA) * math.Sqrt(s.normB); norms > 0 && !math.IsInf(norms, 0) && !math.IsInf(s.dot, 0) {
		o.Cosine = max(-1, min(1, s.dot/norms)) // rounding must not leave the range
	}
	if s.topKRows > 0 {
		o.TopK = s.topK / float64(s.topKRows)
	}
}

// CloseMargin is the distance between the two largest values of a row below which
// another order says little.
const CloseMargin = 1e-3
