// Package compare tells how two answers to the same request differ: the one a caller
// got, here called the first, and another one.
//
// Answers of the Open Inference Protocol are compared output by output, whatever
// their order and however the contents travel. What describes the server rather than
// the prediction (model_name, model_version, id, parameters) is left aside. Answers of
// other services are the same if their bytes are.
//
// Numbers are the same if |b-a| <= Abs + Rel*|a|; integers, truth values and strings
// only if they are equal. -0 equals 0, an infinity only itself, and NaN equals NaN
// unless a rule says otherwise.
package compare
