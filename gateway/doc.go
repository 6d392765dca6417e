// Package gateway joins the rooms: it identifies the model of a call, chooses a
// version by the current routes, picks an endpoint, and has the relay carry the
// frames.
//
// The way of a call is [director]: Opened and Body identify and choose, Failed
// decides about another attempt, Over settles. Everything there runs on the
// connections' readers and never blocks. What changes slowly is prepared elsewhere:
// a [snapshot] holds, for one routing table, a target for each version, and the
// targets share endpoints, whose connections and latencies outlive tables.
package gateway
