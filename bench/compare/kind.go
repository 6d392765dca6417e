package main

// kind says how a scenario's streams are used.
type kind string

const (
	// saturated: every stream calls again as soon as it is answered.
	saturated kind = "saturated"
	// half: calls come at random, at half the rate at which the slowest proxy is
	// saturated, so that all peers carry the same.
	half kind = "half"
)
