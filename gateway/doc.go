// Package gateway joins the rooms: it identifies the model of a call, chooses a
// version by the current routes, asks whether it may be called, picks an endpoint,
// and has the relay carry the frames.
//
// The way of a call is [director]: Opened and Body identify and choose, next walks
// the plan to a version that admits the call, Failed decides about another attempt,
// settle tells everybody how an attempt ended, Over gives the rest back. All of it
// runs on connections' readers and never blocks.
//
// What changes slowly is prepared elsewhere: a [snapshot] holds, for one routing
// table, a [target] for each version. Snapshots are replaced whole. What targets
// refer to outlives them: a [group] of endpoints with their connections and
// latencies, and the breakers.
package gateway
