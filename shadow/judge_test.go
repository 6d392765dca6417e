package shadow

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/proto/inference"
	"sluice/shadow/compare"
)

// anyBody draws how messages travel: each compressed or not. It returns them as gRPC puts
// them on the wire, and their encoding.
func anyBody(t *rapid.T, tb testing.TB, label string, messages [][]byte) (body []byte, encoding string) {
	for _, m := range messages {
		if rapid.Bool().Draw(t, label+" compressed") {
			body, encoding = append(body, frame(1, zipped(tb, m))...), "gzip"
		} else {
			body = append(body, frame(0, m)...)
		}
	}
	return body, encoding
}

// prediction is an answer with numbers and a string, typed or raw, in one order or the other.
func prediction(t *rapid.T, tb testing.TB, label string, numbers []float32, text string, stream bool) []byte {
	type output = inference.ModelInferResponse_InferOutputTensor
	m := &inference.ModelInferResponse{ModelVersion: label}
	score := &output{Name: "score", Datatype: "FP32", Shape: []int64{int64(len(numbers))}}
	name := &output{Name: "name", Datatype: "BYTES", Shape: []int64{1}}
	var raw [2][]byte
	if rapid.Bool().Draw(t, label+" typed") {
		score.Contents = &inference.InferTensorContents{Fp32Contents: numbers}
		name.Contents = &inference.InferTensorContents{BytesContents: [][]byte{[]byte(text)}}
	} else {
		raw[0] = []byte{}
		for _, v := range numbers {
			raw[0] = binary.LittleEndian.AppendUint32(raw[0], math.Float32bits(v))
		}
		raw[1] = append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...)
	}
	m.Outputs = []*output{score, name}
	if rapid.Bool().Draw(t, label+" turned round") {
		m.Outputs = []*output{name, score}
		raw[0], raw[1] = raw[1], raw[0]
	}
	if score.Contents == nil {
		m.RawOutputContents = raw[:]
	}
	if stream {
		return marshal(tb, &inference.ModelStreamInferResponse{InferResponse: m})
	}
	return marshal(tb, m)
}

// A shadow that answers the same is never a mismatch, and one that is off by twice the
// tolerance, or by a letter, always is, however both answers travel.
func TestAnswersAreJudgedByWhatTheySay(t *testing.T) {
	m := &Mirror{verdict: newVerdict(time.Now())}
	m.Update(Settings{})
	w := newWorker(m)
	rapid.Check(t, func(rt *rapid.T) {
		stream := rapid.Bool().Draw(rt, "stream")
		path, messages := modelInfer, 1
		if stream {
			path, messages = inference.GRPCInferenceService_ModelStreamInfer_FullMethodName, rapid.IntRange(1, 4).Draw(rt, "messages")
		}
		wrong := rapid.SampledFrom([]string{"nothing", "a number", "the text"}).Draw(rt, "wrong")
		at := rapid.IntRange(0, messages-1).Draw(rt, "in message")
		var theirs, ours [][]byte
		for i := range messages {
			numbers := make([]float32, rapid.SampledFrom([]int{1, 3, 300, 30_000}).Draw(rt, "numbers"))
			for j := range numbers {
				numbers[j] = float32(j%11) - 5
			}
			text := rapid.StringN(0, 10, -1).Draw(rt, "text")
			theirs = append(theirs, prediction(rt, t, "caller's", numbers, text, stream))
			if i == at && wrong == "a number" {
				j := rapid.IntRange(0, len(numbers)-1).Draw(rt, "element")
				tolerance := compare.Tolerance{Rel: 1.3e-6, Abs: 1e-5}
				numbers[j] += float32(2 * (tolerance.Abs + tolerance.Rel*math.Abs(float64(numbers[j]))))
			} else if i == at && wrong == "the text" {
				text += "x"
			}
			ours = append(ours, prediction(rt, t, "shadow's", numbers, text, stream))
		}
		p := new(payload)
		p.answer, p.encoding = anyBody(rt, t, "caller's", theirs)
		plain := 0
		for _, b := range theirs {
			plain += prefixSize + len(b)
		}
		f := newFlight(newJob(&Copy{Path: path, Payload: p}))
		f.allowance = allowanceFor(plain) // as prepare does
		f.Answer, f.Encoding = anyBody(rt, t, "shadow's", ours)
		want := compare.Values
		if wrong == "nothing" {
			want = compare.None
		}
		if got := w.judge(f, Attempt{}); got != want {
			rt.Fatalf("%v is wrong, and they differ in %v", wrong, got)
		}
	})
}
