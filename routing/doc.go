// Package routing decides which version of a model serves a call.
//
// A routing document (see proto/sluice/routing/v1) is read by [Parse], which
// reports everything that is wrong with it at once, and made into an immutable
// [Table] by [Build]. The path of a call reads the current table from a
// [Router] without locks and without allocating; one writer, such as a
// [FileSource], publishes each new table whole.
//
// Tables, routes and versions are shared by all goroutines and never change
// once they are published. State that outlives a table (breakers, connections,
// counters) belongs elsewhere, keyed by [Version.ID].
package routing
