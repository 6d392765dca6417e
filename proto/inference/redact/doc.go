// Package redact writes tensors down without what must not be written.
//
// [Rules] say by name which values those are: a tensor's name, that of one of its columns, or a tensor's name with
// the number of a column, such as "x[2]". Where rules and a message disagree, about how many columns a tensor has for
// example, more is hidden rather than less. Of a message, only tensors are written: neither its id nor its
// parameters, which may hold anything.
//
// What is hidden is replaced whole. Its place, and so the number of elements, can be seen; its length cannot.
//
// Rules may be used concurrently.
package redact
