// Package telemetry tells what happened: metrics, traces and log lines, all made of one record per call.
//
// The gateway fills a [Call] while the call is under way and hands it to [Telemetry.Record] when it is
// over. Metrics are counted at once, by series that were looked up when the routes were published: that
// costs a few atomic additions. Everything else (a span per call and attempt, a line in the log) is made
// of a copy of the record by goroutines of [Telemetry.Run]. Copies wait in bounded queues; what finds
// no room is dropped and counted, and nothing ever waits for a sink.
//
// Labels come from configuration and from fixed lists alone. Nothing that a client or a model server
// writes becomes a label, an attribute or part of a log line, with exceptions that are made to be
// looked for: the request id and the trace id that came in, and in spans and lines the name of a method
// whose service is in the routes.
package telemetry
