// Package health asks model servers, beside the path of calls, whether they are well.
//
// A [Checker] keeps one round of questions going per server, however many versions and
// routes have it as an endpoint: what concerns the server is asked once, then each
// model that somebody watches. Who wants to know has a [Watch], which tells of changes
// and can be read at any time. What is asked depends on the [Kind] of server.
//
// Any gRPC answer is a sign of life but UNAVAILABLE, DEADLINE_EXCEEDED and one that
// says not serving or not ready. A server that does not know a question is alive, and
// not asked it again while it can be reached; one that knows none is connected to anew
// each time, and has to greet. HTTP/2's own pings are not used: stock gRPC servers close
// connections for them. What has not been asked yet counts as healthy.
package health
