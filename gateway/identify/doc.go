// Package identify finds out which model a call names, and renames it for a
// server that knows the model by another name.
//
// A name can stand in three places: in the path's service, in the metadata
// ([Metadata]) and in the request's messages ([Scanner]). All names present
// must agree. Protobuf lets the last occurrence of a field win, so a message
// that names a second model would otherwise be routed by one name and served
// under the other; the Scanner therefore refuses a call before the last byte
// of such a message is let out.
//
// A [Rewriter] renames without decoding anything: it appends the name fields
// once more behind each message and corrects the length in front of it.
//
// Nothing here does I/O, starts a goroutine or waits; everything may run on a
// connection's reader. A [Scanner], a [Rewriter] and a [Metadata] belong to one
// call and are not safe for concurrent use. A [Method], a [Rewrite] and the
// functions may be shared freely.
package identify
