// Package e2e proves from outside what the gateway promises: real clients and
// real model servers, with the whole gateway between them. Some tests run the
// gateway inside the test process, under the race detector; those about signals,
// killed processes and memory run the binary.
//
// Interoperability and protocol conformance need foreign programs, which
// "make conformance-tools" builds into bin/.
package e2e
