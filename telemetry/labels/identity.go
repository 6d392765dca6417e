package labels

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math"
	"time"

	"sluice/telemetry/labels/score"
)

// Identity is what an answer's id says of its prediction.
type Identity struct {
	// Nonce is random and tells answers apart.
	Nonce uint64
	// At is when the prediction was made, in milliseconds.
	At time.Time
	// Model and Version have answered.
	Model, Version string
	// Arm is the version that the split has chosen, empty if the caller asked for one by name.
	Arm string
	// Prediction is what was predicted, row by row.
	Prediction Prediction
}

// mark tells the predictions of an answer's rows apart, and from those of others: of the first row, the nonce, and of
// those behind it random bits that follow from it (the steps of SplitMix64; Steele, Lea and Flood 2014).
func (id *Identity) mark(row int) uint64 {
	if row == 0 {
		return id.Nonce
	}
	z := id.Nonce + uint64(row)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Kind is what a prediction is.
type Kind uint8

// The kinds.
const (
	None   Kind = iota // not known
	Class              // one of the route's classes
	Number             // a number
)

// Prediction is what an answer predicted, for each of its rows: one, or those of a batch.
type Prediction struct {
	Kind Kind
	// Numbers are what was predicted of a Number.
	Numbers []float64
	// Indexes are what was predicted of a Class, among the names whose fingerprint is Classes.
	Indexes []uint8
	Classes uint32
	// Odds are the log-odds of each class, row by row, in steps of which there are 65,536 from score.Clip to its
	// complement: of two classes, of the second alone. It is empty if probabilities are not known.
	Odds []uint16
}

// Rows is how many predictions there are; 0 if it is not known.
func (p *Prediction) Rows() int {
	switch p.Kind {
	case Class:
		return len(p.Indexes)
	case Number:
		return len(p.Numbers)
	}
	return 0
}

// Clear forgets what was predicted, but not the room that it took.
func (p *Prediction) Clear() {
	*p = Prediction{Numbers: p.Numbers[:0], Indexes: p.Indexes[:0], Odds: p.Odds[:0]}
}

// Fingerprint tells one list of classes from another.
func Fingerprint(classes []string) uint32 {
	h := fnv.New32a()
	for _, c := range classes {
		_, _ = h.Write([]byte(c)) // it never fails
		_, _ = h.Write([]byte{0})
	}
	return h.Sum32()
}

var widest = math.Log((1 - score.Clip) / score.Clip)

// oddsOf is the step of a probability: the error is at most 0.03 % of the smaller of p and 1−p.
func oddsOf(p float64) uint16 {
	p = min(max(p, score.Clip), 1-score.Clip)
	at := (math.Log(p/(1-p)) + widest) / (2 * widest)
	return uint16(math.Round(min(max(at, 0), 1) * math.MaxUint16))
}

// probability is that of a step.
func probability(odds uint16) float64 {
	return 1 / (1 + math.Exp(widest-float64(odds)/math.MaxUint16*2*widest))
}

// Probabilities are those of all classes in a row; nil if they are not known.
func (p *Prediction) Probabilities(row int) []float64 {
	width := len(p.Odds) / max(1, len(p.Indexes))
	odds := p.Odds[row*width:][:width]
	switch width {
	case 0:
		return nil
	case 1:
		v := probability(odds[0])
		return []float64{1 - v, v}
	}
	all := make([]float64, width)
	for k, o := range odds {
		all[k] = probability(o)
	}
	return all
}

// format is the first byte of an id. A gateway reads those of the formats that it knows.
const format = 1

const (
	// maxClasses is how many classes an id has room for.
	maxClasses = 32
	// maxRows is how many rows of a batch.
	maxRows = 128
	// maxContent bounds what was predicted of all rows, in bytes; probabilities that do not fit are left out.
	maxContent = 1024
)

const (
	armNone = iota // the caller asked for the version by name
	armSame        // the version that has answered
	armOther
)

var errIdentity = errors.New("it is not an id of a prediction")

// append writes the identity behind dst. Names are at most 255 bytes, rows as many as there is room for.
func (id *Identity) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, id.Nonce)
	dst = binary.BigEndian.AppendUint64(dst, uint64(id.At.UnixMilli()))
	dst = appendName(dst, id.Model)
	dst = appendName(dst, id.Version)
	switch id.Arm {
	case "":
		dst = append(dst, armNone)
	case id.Version:
		dst = append(dst, armSame)
	default:
		dst = appendName(append(dst, armOther), id.Arm)
	}
	p := &id.Prediction
	dst = append(dst, byte(p.Kind))
	switch p.Kind {
	case Class:
		dst = binary.BigEndian.AppendUint32(dst, p.Classes)
		dst = append(dst, byte(len(p.Indexes)), byte(len(p.Odds)/max(1, len(p.Indexes))))
		dst = append(dst, p.Indexes...)
		for _, o := range p.Odds {
			dst = binary.BigEndian.AppendUint16(dst, o)
		}
	case Number:
		dst = append(dst, byte(len(p.Numbers)))
		for _, v := range p.Numbers {
			dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(v))
		}
	}
	return dst
}

func appendName(dst []byte, name string) []byte {
	name = name[:min(len(name), math.MaxUint8)]
	return append(append(dst, byte(len(name))), name...)
}

// parse reads what append has written, all of it and nothing else.
func (id *Identity) parse(p []byte) error {
	r := reader{p}
	id.Nonce = r.uint64()
	id.At = time.UnixMilli(int64(r.uint64())).UTC()
	id.Model, id.Version = r.name(), r.name()
	switch r.byte() {
	case armNone:
	case armSame:
		id.Arm = id.Version
	case armOther:
		id.Arm = r.name()
		if id.Arm == "" || id.Arm == id.Version { // which are written otherwise
			return errIdentity
		}
	default:
		return errIdentity
	}
	id.Prediction.parse(&r)
	if r.rest == nil || len(r.rest) > 0 {
		return errIdentity
	}
	return nil
}

func (p *Prediction) parse(r *reader) {
	switch p.Kind = Kind(r.byte()); p.Kind {
	case None:
	case Class:
		p.Classes = uint32(r.uint16())<<16 | uint32(r.uint16())
		rows, width := r.rows(), int(r.byte())
		if rows*(1+2*width) != len(r.rest) {
			r.rest = nil
			return
		}
		p.Indexes = append(p.Indexes, r.take(rows)...)
		for range rows * width {
			p.Odds = append(p.Odds, r.uint16())
		}
	case Number:
		for range r.rows() {
			p.Numbers = append(p.Numbers, math.Float64frombits(r.uint64()))
		}
	default:
		r.rest = nil
	}
}

// reader reads fields; once one is missing, rest is nil and all others are empty.
type reader struct{ rest []byte }

func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		r.rest = nil
		return make([]byte, n)
	}
	p := r.rest[:n]
	r.rest = r.rest[n:]
	return p
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// rows reads how many rows there are, of which there have to be some.
func (r *reader) rows() int {
	n := int(r.byte())
	if n == 0 {
		r.rest = nil
	}
	return n
}

func (r *reader) name() string { return string(r.take(int(r.byte()))) }
