package shadow

import (
	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
	"sluice/proto/inference/redact"
	"sluice/proto/inference/tensor"
	"sluice/shadow/compare"
)

// Remembered is what may be shown of a call: the tensors that were asked about, and
// those of both answers. Of a stream, they are those of its first messages.
type Remembered struct {
	Asked  []redact.Tensor `json:"asked,omitempty"`
	Caller []redact.Tensor `json:"caller,omitempty"`
	Shadow []redact.Tensor `json:"shadow,omitempty"`
	// Cut is how many tensors are left out because there was no room for them.
	Cut int `json:"cut,omitempty"`
}

// rememberedBytes bounds each of the three parts of what is remembered, as JSON.
const rememberedBytes = 4 << 10

// remember returns what may be shown of a call; nil if that is nothing, because its
// protocol is not known or its messages are none.
func remember(rules *redact.Rules, f compare.Format, asked []byte, a, b compare.Answer) *Remembered {
	if f == compare.Opaque {
		return nil
	}
	r := new(Remembered)
	req := new(inference.ModelInferRequest)
	if messages, _, err := split(asked); err == nil && len(messages) > 0 && proto.Unmarshal(messages[0], req) == nil {
		if inputs, err := tensor.Inputs(req); err == nil {
			w := rules.Write(inputs, nil, rememberedBytes)
			r.Asked, r.Cut = w.Inputs, w.Cut
		}
	}
	r.Caller, r.Shadow = r.answer(rules, f, a), r.answer(rules, f, b)
	return r
}

// answer returns the tensors of an answer's first message.
func (r *Remembered) answer(rules *redact.Rules, f compare.Format, a compare.Answer) []redact.Tensor {
	if len(a.Messages) == 0 {
		return nil
	}
	outputs, err := compare.Outputs(f, a.Messages[0])
	if err != nil {
		return nil
	}
	w := rules.Write(nil, outputs, rememberedBytes)
	r.Cut += w.Cut
	return w.Outputs
}
