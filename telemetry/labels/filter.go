package labels

// A filter remembers which predictions have a label, in 2 bytes for each: a Bloom filter in blocks that are added as
// they fill up. It never takes a prediction that it has seen for a new one. It takes a new one for one that it has
// seen with a probability below 0.05 % for each block, 0.8 % in all. It is not safe for concurrent use.
type filter struct {
	blocks []*block
	filled int // predictions in the last block
}

const (
	blockBits = 1 << 20
	// blockRoom predictions set half of the bits, with 11 each, which makes 2^-11 the share of new ones that find
	// theirs set.
	blockRoom   = 66_000
	blockProbes = 11
	// maxBlocks bounds a filter to 2 MiB and a million predictions.
	maxBlocks = 16
)

// has reports whether a prediction was added before, as far as is known. A nonce is random, so its halves do for two
// hashes (Kirsch and Mitzenmacher, "Less hashing, same performance", 2006).
func (f *filter) has(nonce uint64) bool {
	for _, b := range f.blocks {
		if b.has(nonce) {
			return true
		}
	}
	return false
}

// full reports whether the filter takes no more.
func (f *filter) full() bool { return len(f.blocks) == maxBlocks && f.filled == blockRoom }

// add remembers a prediction. The filter must not be full.
func (f *filter) add(nonce uint64) {
	if len(f.blocks) == 0 || f.filled == blockRoom {
		f.blocks, f.filled = append(f.blocks, new(block)), 0
	}
	f.filled++
	last := f.blocks[len(f.blocks)-1]
	for i := range uint64(blockProbes) {
		bit := probe(nonce, i)
		last[bit/64] |= 1 << (bit % 64)
	}
}

// markCount is the number of bits of what gateways share: one larger filter of each cohort, in the store. With half a
// million predictions it takes 0.05 % of new ones for known ones, and 3.2 % with a million: 0.5 % of all of those.
const markCount = 1 << 23

// markBits are the bits of a prediction.
func markBits(nonce uint64) []uint32 {
	bits := make([]uint32, blockProbes)
	first, step := nonce>>32, nonce&0xffffffff|1
	for i := range bits {
		bits[i] = uint32((first + uint64(i)*step) % markCount)
	}
	return bits
}

type block [blockBits / 64]uint64

func (b *block) has(nonce uint64) bool {
	for i := range uint64(blockProbes) {
		if bit := probe(nonce, i); b[bit/64]&(1<<(bit%64)) == 0 {
			return false
		}
	}
	return true
}

func probe(nonce, i uint64) uint64 {
	first, step := nonce>>32, nonce&0xffffffff|1
	return (first + i*step) % blockBits
}
