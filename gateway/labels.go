package gateway

import (
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"sluice/gateway/identify"
	"sluice/proto/inference"
	"sluice/proto/inference/tensor"
	"sluice/routing"
	"sluice/telemetry/labels"
)

// predictionField is the trailing metadata that identifies a prediction. It goes with the end of an answer, because
// what was predicted stands in its body.
const predictionField = "sluice-prediction-id"

const (
	// maxReadAnswer bounds an answer that a prediction is looked for in, in bytes.
	maxReadAnswer = 64 << 10
	// maxReading bounds those of all calls together.
	maxReading = 64 << 20
)

// takeLabels tells the monitor what a version predicts; nil if nobody takes labels for it.
func (t *targets) takeLabels(r *routing.Route, v *routing.Version) *labels.Version {
	if t.labels == nil || r.Labels == nil {
		return nil
	}
	key := labels.Key{Model: v.Model, Version: v.Name}
	t.labelled[key] = v
	l := r.Labels
	kinds := map[string]labels.Kind{"class": labels.Class, "number": labels.Number}
	return t.labels.Watch(key, labels.Settings{
		Predicts: kinds[l.Predicts], Output: l.Output, Classes: l.Classes, Tolerance: l.Tolerance, GoodFrom: l.GoodFrom,
		MaxAge: l.MaxAge, Window: l.Window, Detector: l.Detector, ExpectedRun: l.ExpectedRun,
		ReferenceError: l.ReferenceError, Learn: l.Learn,
	})
}

// retainLabels forgets the versions of routes that are gone, unless the routes in their places take labels, too.
func (t *targets) retainLabels(gone []*routing.Route) {
	forgotten := false
	for _, r := range gone {
		for _, v := range r.Versions {
			key := labels.Key{Model: v.Model, Version: v.Name}
			if t.labelled[key] == v {
				delete(t.labelled, key)
				forgotten = true
			}
		}
	}
	if forgotten {
		t.labels.Retain(func(k labels.Key) bool { return t.labelled[k] != nil })
	}
}

// prediction makes the id of the answer of one attempt.
type prediction struct {
	call     *call
	director *director
	version  *labels.Version
	reads    bool   // the prediction is looked for in the answer
	body     []byte // of the answer so far
	held     int    // its part of director.reading
	identity labels.Identity
	room     []byte // for the id
	fields   []hpack.HeaderField
}

var predictions = sync.Pool{New: func() any { return new(prediction) }}

// identifyPrediction prepares the dispatch of an attempt to end with an id. Methods that only tell of a model or its
// server predict nothing.
func (d *director) identifyPrediction(s *call) {
	if !s.method.Predicts() && s.method.Class != identify.ClassForeign {
		return
	}
	p := s.prediction
	if p == nil {
		p = predictions.Get().(*prediction)
		s.prediction = p
	}
	p.drop()
	p.call, p.director, p.version = s, d, s.target.labels
	if p.reads = s.method.Infers() && p.version.Reads(); p.reads {
		s.dispatch.Watch = p
	}
	s.dispatch.Trailers = p
}

// AnswerData implements [relay.Watcher]: it keeps a short answer. Nothing of an answer reaches it before one attempt
// of a call has won.
func (p *prediction) AnswerData(_ time.Time, data []byte) {
	if !p.reads {
		return
	}
	p.body = append(p.body, data[:min(len(data), maxReadAnswer+1)]...)
	total := p.director.reading.Add(int64(len(p.body) - p.held))
	if p.held = len(p.body); p.held > maxReadAnswer || total > maxReading {
		p.drop()
	}
}

// drop gives up the answer that was kept.
func (p *prediction) drop() {
	if p.director != nil {
		p.director.reading.Add(-int64(p.held))
	}
	p.body, p.held, p.reads = p.body[:0], 0, false
}

// AppendTrailers implements [relay.TrailerSource].
func (p *prediction) AppendTrailers(fields []hpack.HeaderField) []hpack.HeaderField {
	s, v, id := p.call, p.call.target.version, &p.identity
	id.Nonce, id.At, id.Model, id.Version, id.Arm = rand.Uint64(), time.Now(), v.Model, v.Name, ""
	if !s.forced {
		id.Arm = s.primary.version.Name
	}
	if p.version.Reads() && s.method.Infers() {
		outputs, err := p.outputs()
		p.version.Read(outputs, err, &id.Prediction)
	}
	p.drop()
	p.version.Predicted(max(1, id.Prediction.Rows()))
	p.room = p.director.signer.Append(p.room[:0], id)
	// The upstream's trailers have no room for one more, and the relay keeps none of these slices.
	p.fields = append(append(p.fields[:0], fields...), hpack.HeaderField{Name: predictionField, Value: string(p.room), Sensitive: true})
	return p.fields
}

// outputs decodes the answer that was kept. Of a compressed one it is assumed that gzip was used, as nearly all are.
func (p *prediction) outputs() ([]tensor.Tensor, error) {
	resp := new(inference.ModelInferResponse)
	if err := unmarshalFirst(p.body, "gzip", resp); err != nil {
		return nil, err
	}
	return tensor.Outputs(resp)
}

// free gives p back; nil has nothing to be given back.
func (p *prediction) free() {
	if p == nil {
		return
	}
	p.drop()
	p.identity.Prediction.Clear()
	clear(p.fields)
	*p = prediction{body: p.body, room: p.room, fields: p.fields, identity: labels.Identity{Prediction: p.identity.Prediction}}
	predictions.Put(p)
}
