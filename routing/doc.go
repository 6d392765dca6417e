// Package routing decides which version of a model serves a call.
//
// A routing document (see proto/sluice/routing/v1) is read by [Parse], which
// reports everything that is wrong with it at once, and made into an immutable
// [Table]. The path of a call reads the current table from a [Router] without
// locks and without allocating.
//
// A [Store] keeps the documents and every [Update] that was made to them, as
// changes that form one chain: in memory, on disk or in Redis. A [Watcher]
// follows the store and is the one writer of its router: it publishes each state
// whole, and the tables share the routes that did not change. Whoever wants a
// change, an operator or a [FileSource], asks the watcher:
//
//	store -> Watcher -> Router -> calls
//	  ^         |
//	  +- Update +
//
// Tables, routes and versions are shared by all goroutines and never change
// once they are published. State that outlives a table (breakers, connections,
// counters) belongs elsewhere, keyed by [Version.ID].
package routing
