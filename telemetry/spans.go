package telemetry

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	grpccodes "google.golang.org/grpc/codes"
)

// Attributes of the gateway's own. Their values come from the routes, but for the request id.
const (
	attrModel       = attribute.Key("sluice.model")
	attrVersion     = attribute.Key("sluice.version")
	attrPrimary     = attribute.Key("sluice.primary")
	attrChoice      = attribute.Key("sluice.choice")
	attrRevision    = attribute.Key("sluice.revision")
	attrAttempts    = attribute.Key("sluice.attempts")
	attrFallback    = attribute.Key("sluice.fallback.reason")
	attrReason      = attribute.Key("sluice.reason")
	attrOutcome     = attribute.Key("sluice.outcome")
	attrKind        = attribute.Key("sluice.attempt.kind")
	attrEndpoint    = attribute.Key("sluice.endpoint")
	attrDataVersion = attribute.Key("sluice.data_version")
	attrRequestID   = attribute.Key("sluice.request_id")
	attrKept        = attribute.Key("sluice.kept")
	attrRequest     = attribute.Key("sluice.request.bytes")
	attrAnswer      = attribute.Key("sluice.answer.bytes")
	attrAnswered    = attribute.Key("sluice.shadow.answered_by")
	attrVerdict     = attribute.Key("sluice.shadow.verdict")
	attrResetCode   = attribute.Key("http2.error_code")
)

// spanBuilder makes spans of records. The SDK would draw ids and read the clock itself when a span begins;
// here the spans are over, their ids have been passed on, and their times are known. One goroutine uses it.
type spanBuilder struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	ended    spanList
}

func newSpanBuilder(r *resource.Resource) *spanBuilder {
	b := new(spanBuilder)
	b.provider = sdktrace.NewTracerProvider(
		sdktrace.WithResource(r), sdktrace.WithIDGenerator(idsFromContext{}),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithSpanProcessor(&b.ended))
	b.tracer = b.provider.Tracer("sluice/telemetry", trace.WithSchemaURL(semconv.SchemaURL))
	return b
}

// spanList collects the spans that have been made.
type spanList struct{ spans []sdktrace.ReadOnlySpan }

func (l *spanList) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (l *spanList) OnEnd(s sdktrace.ReadOnlySpan)                   { l.spans = append(l.spans, s) }
func (l *spanList) ForceFlush(context.Context) error                { return nil }
func (l *spanList) Shutdown(context.Context) error                  { return nil }

// take empties the list.
func (l *spanList) take() []sdktrace.ReadOnlySpan {
	all := l.spans
	l.spans = nil
	return all
}

// idsFromContext gives spans the ids that were drawn for them.
type idsFromContext struct{}

type idsKey struct{}

type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

func (idsFromContext) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	i, _ := ctx.Value(idsKey{}).(ids)
	return i.trace, i.span
}

func (idsFromContext) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	i, _ := ctx.Value(idsKey{}).(ids)
	return i.span
}

// count is how many spans build makes.
func (c *Call) count() int { return 1 + len(c.Attempts()) }

// build makes the spans of a call: its own, and one below it for each attempt.
func (c *Call) build(b *spanBuilder) {
	ctx := context.Background()
	if c.Trace.Parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: c.Trace.ID, SpanID: c.Trace.Parent, TraceFlags: c.Trace.Flags, Remote: true,
		}))
	}
	ctx, span := b.tracer.Start(context.WithValue(ctx, idsKey{}, ids{c.Trace.ID, c.Trace.Span}), spanName(c),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(c.Opened), trace.WithAttributes(callAttributes(c)...))
	for _, r := range c.Refusals() {
		span.AddEvent("version refused", trace.WithTimestamp(r.At),
			trace.WithAttributes(attrVersion.String(r.Series.Version), attrReason.String(r.Reason)))
	}
	for i := range c.Attempts() {
		b.attempt(ctx, c, &c.attempts[i])
	}
	if serverFault(c.Code) {
		span.SetStatus(codes.Error, c.Reason)
	}
	span.End(trace.WithTimestamp(c.Ended))
}

func (b *spanBuilder) attempt(ctx context.Context, c *Call, a *Attempt) {
	_, span := b.tracer.Start(context.WithValue(ctx, idsKey{}, ids{c.Trace.ID, a.Span}), a.Kind.String()+" "+a.Series.Version,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(a.Started), trace.WithAttributes(
			semconv.RPCSystemNameGRPC, semconv.RPCMethod(methodOf(c)), semconv.RPCResponseStatusCode(CodeName(a.Code)),
			attrModel.String(a.Series.Model), attrVersion.String(a.Series.Version), attrEndpoint.String(a.Endpoint),
			attrKind.String(a.Kind.String()), attrOutcome.String(a.Outcome), attrReason.String(a.Reason),
			attrDataVersion.String(a.DataVersion), attrRevision.Int64(int64(c.Revision))),
		trace.WithAttributes(serverOf(a.Endpoint)...))
	if a.Kind == Hedge {
		span.AddEvent("hedge", trace.WithTimestamp(a.Started))
	}
	if !a.FirstByte.IsZero() {
		span.AddEvent("answer begun", trace.WithTimestamp(a.FirstByte))
	}
	if a.Reset {
		span.AddEvent("reset by the model server", trace.WithTimestamp(a.Ended), trace.WithAttributes(attrResetCode.Int64(int64(a.ResetCode))))
	}
	if a.Code != 0 {
		span.SetAttributes(semconv.ErrorTypeKey.String(CodeName(a.Code)))
		span.SetStatus(codes.Error, a.Reason)
	}
	span.End(trace.WithTimestamp(a.Ended))
}

// serverOf names an endpoint in OpenTelemetry's words, by which graphs of services are made.
func serverOf(endpoint string) []attribute.KeyValue {
	host, digits, err := net.SplitHostPort(endpoint)
	port, notNumber := strconv.Atoi(digits)
	if err != nil || notNumber != nil {
		return nil // it did not get as far as an endpoint
	}
	return []attribute.KeyValue{semconv.ServerAddress(host), semconv.ServerPort(port)}
}

// callAttributes says who was chosen, who answered, and why.
func callAttributes(c *Call) []attribute.KeyValue {
	all := []attribute.KeyValue{
		semconv.RPCSystemNameGRPC, semconv.RPCMethod(methodOf(c)), semconv.RPCResponseStatusCode(CodeName(c.Code)),
		attrModel.String(c.Series.Model), attrRequestID.String(c.RequestID), attrRevision.Int64(int64(c.Revision)),
		attrAttempts.Int(c.begun), attrKept.String(c.why.String()),
		attrRequest.Int64(c.RequestBytes), attrAnswer.Int64(c.AnswerBytes),
	}
	if c.Series.Version != "" {
		all = append(all, attrVersion.String(c.Series.Version), attrDataVersion.String(c.DataVersion))
	}
	if c.Primary != nil {
		all = append(all, attrPrimary.String(c.Primary.Version), attrChoice.String(c.Choice),
			semconv.FeatureFlagKey(c.Primary.Model), semconv.FeatureFlagProviderName("sluice"),
			semconv.FeatureFlagResultVariant(c.Primary.Version), flagReason(c))
	}
	if c.FallbackReason != "" {
		all = append(all, attrFallback.String(c.FallbackReason))
	}
	if c.Reason != "" {
		all = append(all, attrReason.String(c.Reason))
	}
	if c.Code != 0 {
		all = append(all, semconv.ErrorTypeKey.String(CodeName(c.Code)))
	}
	return all
}

// flagReason says in OpenTelemetry's words why the version was chosen.
func flagReason(c *Call) attribute.KeyValue {
	if c.Forced {
		return semconv.FeatureFlagResultReasonTargetingMatch
	}
	return semconv.FeatureFlagResultReasonSplit
}

// methodOf is the method in full; one that a client made up is _OTHER.
func methodOf(c *Call) string { return fullMethod(c.Service, c.Method) }

func fullMethod(service, method string) string {
	if service == "" {
		return other
	}
	return service + "/" + method
}

func spanName(c *Call) string {
	if c.Service == "" {
		return "grpc"
	}
	return fmt.Sprintf("%s/%s", c.Service, c.Method)
}

// serverFault reports codes that OpenTelemetry counts as errors of whoever answers: the others are for
// the caller to avoid.
func serverFault(code uint32) bool {
	switch grpccodes.Code(code) {
	case grpccodes.Unknown, grpccodes.DeadlineExceeded, grpccodes.Unimplemented, grpccodes.Internal, grpccodes.Unavailable, grpccodes.DataLoss:
		return true
	}
	return false
}
