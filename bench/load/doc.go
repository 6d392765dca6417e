// Package load makes gRPC calls at a server and measures how long it takes to answer.
//
// It works in two ways. In the closed loop every stream makes its next call when its last
// one was answered: that finds out how much a server can do, and says little about its
// latency, because a server that stalls is asked less. In the open loop calls are due at
// a given rate, whatever the server does, and a call's latency counts from the moment it
// was due. A stall of a second then shows in all the calls of that second, as it would in
// those of real users.
//
// A [Client] holds HTTP/2 connections, each with one goroutine that reads and one that
// writes, however many calls are open. It is a client of its own and not grpc-go's
// because its cost is charged to the machine under measurement.
package load
