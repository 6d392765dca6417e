// Package admin is the operators' service: it shows and changes what a gateway
// routes where, explains it, and tells who changed it and why.
//
// [New] makes a [Service]; [Service.Handler] serves it over gRPC, gRPC-Web and
// JSON, with the tokens of a [TokenFile] where one is given. The schema is
// proto/sluice/admin/v1. Nothing here is on the path of a call.
//
// Every change takes one way, in change.go: the documents after it are computed
// from the state served here, checked, guarded, and written if the store still
// has that state. Who loses a race is told so, unless the two changes have
// nothing to do with each other: then the second one is made to the new state.
package admin
