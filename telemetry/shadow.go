package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Shadow is the record of a copy of a call, sent to a version whose answers nobody sees. What comes of it is
// no part of what the caller waited for, so that it has a trace of its own, linked to the call's span.
type Shadow struct {
	// Model and Version got the copy, at Endpoint; DataVersion says what the version's model was trained with.
	Model, Version, DataVersion, Endpoint string
	// Service and Method are as in the call's record.
	Service, Method string
	// RequestID, Revision and Answered are the call's: Answered is the version that answered the caller.
	RequestID, Answered string
	Revision            uint64
	// Started and Ended are when it was sent and when it was over.
	Started, Ended time.Time
	// Code is the status that the shadow ended with.
	Code uint32
	// Failed says why there is no answer to compare; empty if there is one.
	Failed string
	// Verdict says in what the answers differ, "none" if in nothing; empty if there was nothing to compare.
	Verdict string

	call  Trace // the call's own span
	trace Trace
}

// Link returns a traceparent that names the call's own span, sampled if its spans are kept; empty if there are no
// traces. That is known once the call has been recorded.
func (c *Call) Link() string {
	if !c.Trace.Span.IsValid() {
		return ""
	}
	t := c.Trace
	t.Flags = t.Flags.WithSampled(c.why != notKept)
	p := new(Traceparent)
	return p.Write(&t, t.Span)
}

// BeginShadow begins a trace for a copy of the call that link names, which is sampled if the call's spans are kept.
// It returns the traceparent for the shadow, and false if there are no traces.
func (t *Telemetry) BeginShadow(s *Shadow, link string) (string, bool) {
	if t == nil || t.spans == nil || !s.call.parse(link) {
		return "", false
	}
	s.trace = Trace{ID: newTraceID(), Span: newSpanID(), Flags: s.call.Flags}
	p := new(Traceparent)
	return p.Write(&s.trace, s.trace.Span), true
}

// RecordShadow takes the record of a copy that BeginShadow has begun and that is over; nobody changes it any more.
func (t *Telemetry) RecordShadow(s *Shadow) {
	if s.trace.Flags.IsSampled() {
		t.spans.offer(s)
	}
}

func (s *Shadow) count() int { return 1 }

func (s *Shadow) build(b *spanBuilder) {
	_, span := b.tracer.Start(context.WithValue(context.Background(), idsKey{}, ids{s.trace.ID, s.trace.Span}), "shadow "+s.Version,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(s.Started), trace.WithAttributes(s.attributes()...),
		trace.WithLinks(trace.Link{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: s.call.ID, SpanID: s.call.Parent, TraceFlags: s.call.Flags,
		})}))
	if s.Code != 0 || s.Failed != "" {
		span.SetAttributes(semconv.ErrorTypeKey.String(s.reason()))
		span.SetStatus(codes.Error, s.reason())
	}
	span.End(trace.WithTimestamp(s.Ended))
}

func (s *Shadow) attributes() []attribute.KeyValue {
	all := append(serverOf(s.Endpoint),
		semconv.RPCSystemNameGRPC, semconv.RPCMethod(fullMethod(s.Service, s.Method)), semconv.RPCResponseStatusCode(CodeName(s.Code)),
		attrModel.String(s.Model), attrVersion.String(s.Version), attrDataVersion.String(s.DataVersion), attrEndpoint.String(s.Endpoint),
		attrKind.String("shadow"), attrReason.String(s.reason()), attrRevision.Int64(int64(s.Revision)),
		attrRequestID.String(s.RequestID), attrAnswered.String(s.Answered))
	if s.Verdict != "" {
		all = append(all, attrVerdict.String(s.Verdict))
	}
	return all
}

// reason names the status that came back, or what came in its stead.
func (s *Shadow) reason() string {
	if s.Failed != "" {
		return s.Failed
	}
	return CodeName(s.Code)
}
