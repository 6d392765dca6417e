// Package tensor reads the tensors of the Open Inference Protocol, in whichever way
// a message carries them: typed contents beside the tensor's name, or raw bytes at
// the message's end. Both give the same [Tensor].
//
// What it reads comes from strangers. Nothing is believed that the message does not
// hold: an element count is the product of the shape only if the contents have that
// many elements, so a huge shape costs an error and no memory.
//
// A Tensor refers to the message it was read from, which must not change. It is
// never written, and may be read concurrently.
package tensor
