// Package payload keeps samples of calls on disk, a JSON object in a line each, for those who have to see what a model is
// asked. It is off unless an operator names a directory and a route says how many and what must not be written.
//
// A [Sampler] takes calls from one goroutine, which never waits for a disk, and writes them from another. What is
// written is bounded in bytes a line, in bytes altogether and in time: files are deleted when their first line is
// as old as the retention allows, and the oldest ones when there is too much. What is not written is counted.
package payload
