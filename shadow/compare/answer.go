package compare

import (
	"bytes"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
	"sluice/proto/inference/tensor"
)

// Format is what an answer's messages are.
type Format uint8

// The formats.
const (
	Opaque      Format = iota // messages of a service that is not known
	Infer                     // one inference.ModelInferResponse
	StreamInfer               // any number of inference.ModelStreamInferResponse
)

// FormatOf returns the format of a method's answers, by the call's path.
func FormatOf(path string) Format {
	switch path {
	case inference.GRPCInferenceService_ModelInfer_FullMethodName:
		return Infer
	case inference.GRPCInferenceService_ModelStreamInfer_FullMethodName:
		return StreamInfer
	}
	return Opaque
}

// Answer is one answer: its status and its messages, without prefixes and
// uncompressed.
type Answer struct {
	Code     uint32 // of gRPC
	Messages [][]byte
}

// Comparer compares answers one after the other; it keeps its working memory. Not
// safe for concurrent use.
type Comparer struct {
	floats [2][block]float64
	bits   [2][block]uint64
	rows   rows
}

// Compare compares the answer b with the caller's, a. Messages of failed calls are
// not looked at.
func (c *Comparer) Compare(f Format, rules *Rules, a, b Answer) Result {
	switch {
	case a.Code != b.Code:
		return Result{Difference: Codes, Why: fmt.Sprintf("the caller got code %d, the shadow answered %d", a.Code, b.Code)}
	case a.Code != 0:
		return Result{}
	case f == Opaque:
		return opaque(a, b)
	}
	var r Result
	for i := range max(len(a.Messages), len(b.Messages)) {
		if i >= len(a.Messages) || i >= len(b.Messages) {
			r.Difference = worse(r.Difference, Messages)
			r.Why = fmt.Sprintf("the caller got %d messages, the shadow sent %d", len(a.Messages), len(b.Messages))
			break
		}
		c.message(f, rules, &r, a.Messages[i], b.Messages[i])
	}
	for i := range r.Outputs {
		r.Difference = worse(r.Difference, r.Outputs[i].Difference)
		r.Outputs[i].conclude()
	}
	return r
}

func opaque(a, b Answer) Result {
	if len(a.Messages) != len(b.Messages) {
		return Result{Difference: Messages, Why: fmt.Sprintf("the caller got %d messages, the shadow sent %d", len(a.Messages), len(b.Messages))}
	}
	for i := range a.Messages {
		if !bytes.Equal(a.Messages[i], b.Messages[i]) {
			return Result{Difference: OpaqueBytes, Why: fmt.Sprintf("message %d: %d bytes and %d bytes", i, len(a.Messages[i]), len(b.Messages[i]))}
		}
	}
	return Result{}
}

// message adds what one pair of messages says to r.
func (c *Comparer) message(f Format, rules *Rules, r *Result, a, b []byte) {
	before := read(f, a)
	if bytes.Equal(a, b) {
		if before.err == nil { // whatever it is otherwise, it is the same
			c.same(rules, r, before.tensors)
		}
		return
	}
	after := read(f, b)
	errA, errB := before.err, after.err
	switch {
	case errA != nil:
		r.unreadable("the caller's answer", errA) // whatever the shadow's is
		return
	case errB != nil:
		r.unreadable("the shadow's answer", errB)
		return
	}
	if before.failure != after.failure {
		r.Difference = worse(r.Difference, Codes)
		r.Why = "one stream has an error where the other has none, or another one"
		return
	}
	c.tensors(rules, r, before.tensors, after.tensors)
}

func (r *Result) unreadable(which string, err error) {
	r.Difference = worse(r.Difference, Unreadable)
	r.Why = fmt.Sprintf("%s: %v", which, err)
}

// Outputs returns the outputs of one message of an answer that is not [Opaque].
func Outputs(f Format, message []byte) ([]tensor.Tensor, error) {
	c := read(f, message)
	return c.tensors, c.err
}

// content is one message of an answer.
type content struct {
	tensors []tensor.Tensor
	failure string // error_message of a stream
	err     error
}

func read(f Format, b []byte) (c content) {
	var m *inference.ModelInferResponse
	if f == StreamInfer {
		s := new(inference.ModelStreamInferResponse)
		if c.err = proto.Unmarshal(b, s); c.err != nil {
			return c
		}
		c.failure, m = s.GetErrorMessage(), s.GetInferResponse()
	} else {
		m = new(inference.ModelInferResponse)
		if c.err = proto.Unmarshal(b, m); c.err != nil {
			return c
		}
	}
	c.tensors, c.err = tensor.Outputs(m)
	return c
}

// tensors compares the outputs of two messages by their names.
func (c *Comparer) tensors(rules *Rules, r *Result, a, b []tensor.Tensor) {
	taken := make([]bool, len(b))
	for i := range a {
		rule := rules.of(a[i].Name)
		j := find(b, taken, a[i].Name)
		if j >= 0 {
			taken[j] = true
		}
		if rule.Ignore {
			continue
		}
		o := r.output(&a[i])
		if j < 0 {
			o.Difference = worse(o.Difference, Missing)
			continue
		}
		c.tensor(rules, rule, o, &a[i], &b[j])
	}
	for j := range b {
		if !taken[j] && !rules.of(b[j].Name).Ignore {
			o := r.output(&b[j])
			o.Difference = worse(o.Difference, Extra)
		}
	}
}

func find(all []tensor.Tensor, taken []bool, name string) int {
	for j := range all {
		if !taken[j] && all[j].Name == name {
			return j
		}
	}
	return -1
}

// output returns the result's entry for an output, which is made if there is none.
func (r *Result) output(t *tensor.Tensor) *Output {
	for i := range r.Outputs {
		if r.Outputs[i].Name == t.Name {
			return &r.Outputs[i]
		}
	}
	r.Outputs = append(r.Outputs, Output{Name: t.Name, Datatype: t.Datatype.String(), Cosine: math.NaN(), TopK: math.NaN()})
	return &r.Outputs[len(r.Outputs)-1]
}
