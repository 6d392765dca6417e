// Package tape keeps calls in files, so that they can be made again.
//
// A [Recorder] writes the calls of one route into a folder of its own: files of JSON
// lines, one for each call, that are bounded in size and age. What identifies callers to
// servers is never written; what they asked and were answered is, whole. [Read] reads
// them again, the oldest first.
package tape
