package routing

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// stickyPick chooses by weighted rendezvous hashing: every version draws a
// number from the key, exponentially distributed with its weight as the rate,
// and the smallest wins. The winner is version i with probability w_i/sum(w).
// Raising one weight only makes that version's numbers smaller, so the only
// keys that move are those it wins.
//
// Rendezvous hashing: Thaler and Ravishankar, "Using Name-Based Mappings to
// Increase Hit Rates", IEEE/ACM Transactions on Networking 6(1), 1998. The
// logarithm for the weights: Schindelhauer and Schomaker, "Weighted Distributed
// Hash Tables", SPAA 2005.
//
// The compiler may round logarithms differently on another architecture. Two
// gateways that differ so disagree about a key only when two numbers lie within
// a unit in the last place, for about one key in 2^50.
func (r *Route) stickyPick(key string) *Version {
	if len(r.split) == 1 {
		return r.split[0].version
	}
	h := xxhash.Sum64String(key)
	var winner *Version
	least := math.Inf(1)
	for i := range r.split {
		s := &r.split[i]
		if draw := -math.Log(unit(mix(h^s.hash))) / s.weight; draw < least {
			winner, least = s.version, draw
		}
	}
	return winner
}

// hashVersion hashes a salt and a version's name. The salt holds no control
// characters, so a zero byte keeps the two apart.
func hashVersion(salt, name string) uint64 {
	return xxhash.Sum64String(salt + "\x00" + name)
}

// mix makes every bit of the result depend on every bit of x: the finalizer of
// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
// Generators", OOPSLA 2014; constants by Stafford, "Better Bit Mixing", 2011,
// Mix13). Without it the draws of a key's versions would differ by the same
// bits for every key.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit maps x to the open interval (0, 1): 52 bits, each value in the middle of
// its step, which a float64 still holds exactly. So the logarithm is finite and
// never 0.
func unit(x uint64) float64 {
	return (float64(x>>12) + 0.5) * 0x1p-52
}
