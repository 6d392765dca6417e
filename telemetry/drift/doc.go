// Package drift tells when a model's data moves: what is asked of each version, and what it answers, against a
// reference such as its training data, feature by feature.
//
// A [Monitor] has a [Version] for each version of a model that is watched. On the path of a call there are only
// [Version.Wants], which picks calls by their id up to a rate, and [Version.Offer], which hands a copy to a
// bounded queue or drops it. One goroutine decodes the copies and counts their values into the cells of the
// reference. Counts are all that is kept; statistics are computed from them (package stat).
//
// Time is cut into windows, and each window into twelve slots. When a slot is over, the counts of all gateways
// are added up, if they share a store; when a window is over, every feature is judged. All gateways judge the
// same sums, so they agree.
//
// Everything here may be used concurrently.
package drift
