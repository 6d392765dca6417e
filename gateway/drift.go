package gateway

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"sluice/gateway/identify"
	"sluice/gateway/relay"
	"sluice/proto/inference"
	"sluice/proto/inference/redact"
	"sluice/proto/inference/tensor"
	"sluice/routing"
	"sluice/telemetry/drift"
	"sluice/telemetry/payload"
)

// maxSample bounds what a compressed message of a sample may become, in bytes.
const maxSample = 16 << 20

// watchData tells the monitor how a version is watched; nil if it is not.
func (t *targets) watchData(r *routing.Route, v *routing.Version) *drift.Version {
	if t.drift == nil || r.Drift == nil {
		return nil
	}
	key := drift.Key{Model: v.Model, Version: v.Name}
	t.data[key] = v
	return t.drift.Watch(key, drift.Settings{
		Payloads:  payloads(r.Drift),
		PerSecond: r.Drift.PerSecond, Learn: r.Drift.Learn, Columns: r.Drift.Columns,
		Policy: drift.Policy{Window: r.Drift.Window, ExpectedRun: r.Drift.ExpectedRun, Effect: r.Drift.Effect},
	}, v.Provenance.Data)
}

// payloads says which calls are written down; nil if none are.
func payloads(d *routing.Drift) *payload.Settings {
	if d.Payloads == nil {
		return nil
	}
	return &payload.Settings{
		PerSecond: d.Payloads.PerSecond, MaxBytes: d.Payloads.MaxBytes, Rules: redact.New(d.Payloads.Redact, d.Payloads.Keep, d.Columns),
	}
}

// retainData forgets the versions of routes that are gone, unless the routes in their
// places watch them, too.
func (t *targets) retainData(gone []*routing.Route) {
	forgotten := false
	for _, r := range gone {
		for _, v := range r.Versions {
			key := drift.Key{Model: v.Model, Version: v.Name}
			if t.data[key] == v {
				delete(t.data, key)
				forgotten = true
			}
		}
	}
	if forgotten {
		t.drift.Retain(func(k drift.Key) bool { return t.data[k] != nil })
	}
}

// sampleData asks for a copy of a call that its version's data is to be read from.
func (s *call) sampleData(c *relay.Call) {
	if s.target.data != nil && s.method.Infers() && s.target.data.Wants(s.id) {
		s.sampled = true
		c.Capture()
	}
}

// handOutCopy gives the copy of a call that is over to all who have asked for one.
func (s *call) handOutCopy(c *relay.Call, o relay.Outcome) {
	k := c.Captured() // nil if it was given up
	if s.sampled && k != nil {
		s.offerData(k, o)
	}
	if s.copyTo != 0 {
		s.copyToShadows(c, o, k)
	}
	if s.tape != nil {
		s.keepCall(c, o, k)
	}
	if k != nil {
		k.Release()
	}
}

// offerData hands the copy of a call to whoever watches the version that has answered. Errors say nothing of a
// model's data.
func (s *call) offerData(k *relay.Capture, o relay.Outcome) {
	if o.Kind != relay.Answered || codes.Code(o.Code) != codes.OK || s.target.data == nil {
		return
	}
	k.Retain()
	s.target.data.Offer(s.id, &dataSample{copy: k, encoding: s.meta.Encoding})
}

// dataSample is a copy of a call, to be read.
type dataSample struct {
	copy     *relay.Capture
	encoding string // of the request
}

// Tensors reads the copy.
func (d *dataSample) Tensors() (inputs, outputs []tensor.Tensor, err error) {
	req, resp := new(inference.ModelInferRequest), new(inference.ModelInferResponse)
	if err := unmarshalFirst(d.copy.AppendRequest(nil), d.encoding, req); err != nil {
		return nil, nil, fmt.Errorf("request: %w", err)
	}
	if err := unmarshalFirst(d.copy.AppendAnswer(nil), d.copy.AnswerEncoding(), resp); err != nil {
		return nil, nil, fmt.Errorf("answer: %w", err)
	}
	if inputs, err = tensor.Inputs(req); err != nil {
		return nil, nil, fmt.Errorf("request: %w", err)
	}
	if outputs, err = tensor.Outputs(resp); err != nil {
		return nil, nil, fmt.Errorf("answer: %w", err)
	}
	return inputs, outputs, nil
}

func unmarshalFirst(body []byte, encoding string, m proto.Message) error {
	message, err := identify.FirstMessage(body, encoding, maxSample)
	if err != nil {
		return err
	}
	return proto.Unmarshal(message, m)
}

// Release gives the copy back.
func (d *dataSample) Release() { d.copy.Release() }
