// Package sample is a small model server with real models, for demonstrations
// and tests of the gateway.
//
// The models tell the species of a penguin from four measurements. They were
// trained by the program in sample/train on the data in sample/data, and are
// embedded as the JSON files in sample/models together with their provenance.
// [Split] gives the rows that no model has seen, so whoever sends them can
// count how often the answer is right.
//
// A [Server] serves one [Model] over the Open Inference Protocol. Its [Knobs]
// make it slow, faulty or hung while it runs, and [Server.Counters] accounts
// for every call it has begun.
package sample
