package relay

import (
	"math/bits"
	"sync"
)

// Large chunks come from regions of memory that the kernel is asked to map by huge pages, for which
// most systems want to be asked and Go does not ask: what is kept of large requests is in no cache, and
// looking up its pages of 4 KiB took a tenth of the time of a request of 1 MiB (docs/performance.md).
//
// The kernel may take milliseconds to find a huge page, and clears all of it. So whoever takes a chunk
// never waits for one: where no region has a chunk left, chunks are Go's memory, and the sweeper
// adds as many regions as there should have been.

// regionSize is that of a huge page on x86-64, and on arm64 with pages of 4 KiB (Linux,
// Documentation/admin-guide/mm/transhuge.rst).
const regionSize = 2 << 20

// areaSize is how much address space is taken at once, of which only what is used takes memory.
const areaSize = 64 << 20

const chunksPerRegion = regionSize / largeChunk

// allFree has a bit for every chunk of a region.
const allFree = 1<<chunksPerRegion - 1

// regionsPerTick bounds what one tick adds or gives back: some 10 ms of work at most.
const regionsPerTick = 16

// region is one huge page, if the kernel has one.
type region struct {
	of     *regions
	place  int
	memory []byte
	chunks [chunksPerRegion]chunk
	free   uint64 // bits of the chunks that can be lent; 0 without memory. Guarded by of.mu
	held   bool   // has memory; guarded by of.ticking
}

// regions lends out large chunks. It may be used by many goroutines at once. Regions are kept
// for good, so that nothing points to where there is nothing, and their number is bounded by the
// most chunks that were ever lent at once; their memory comes and goes by tick. It is neither in Go's
// heap nor under its memory limit.
type regions struct {
	mapArea func() []byte                   // a multiple of regionSize, nil if there is no more
	forget  func(memory []byte) (gone bool) // gives memory back to the system; the address space stays

	ticking sync.Mutex // before mu; held while waiting for the system
	rest    []byte     // of the last area

	mu      sync.Mutex
	all     []*region // only appended to, by tick
	first   int       // no region before it, by place, has a chunk to lend
	spare   int       // regions that have memory and have lent none of it
	least   int       // the fewest spare ones since the last tick
	outside int       // chunks of Go's memory that are out for want of a region
	most    int       // the most there were when one was taken since the last tick; 0 if none was
}

// largeMemory is for the whole process, as the pools are.
var largeMemory = regions{mapArea: mapArea, forget: forgetMemory}

// get returns a chunk. The lowest region that has one lends it, so that the others become free.
func (r *regions) get() *chunk {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.first < len(r.all) && r.all[r.first].free == 0 {
		r.first++
	}
	if r.first == len(r.all) {
		r.outside++
		r.most = max(r.most, r.outside)
		return largeChunks.Get().(*chunk)
	}
	g := r.all[r.first]
	if g.free == allFree {
		r.spare--
		r.least = min(r.least, r.spare)
	}
	i := bits.TrailingZeros64(g.free)
	g.free &^= 1 << i
	return &g.chunks[i]
}

// put takes back a chunk that nobody holds.
func (r *regions) put(c *chunk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := c.home
	if g == nil {
		r.outside--
		largeChunks.Put(c)
		return
	}
	if g.free&(1<<c.slot) != 0 {
		panic("relay: a chunk is given back twice")
	}
	g.free |= 1 << c.slot
	r.first = min(r.first, g.place)
	if g.free == allFree {
		r.spare++
	}
}

// tick adds the regions that were wanting since the last one, and gives back the memory of a
// quarter of those that were not needed. It waits for the system.
func (r *regions) tick() {
	r.ticking.Lock()
	defer r.ticking.Unlock()
	r.mu.Lock()
	wanting, unneeded := (r.most+chunksPerRegion-1)/chunksPerRegion, r.least/4
	r.most, r.least = 0, r.spare
	r.mu.Unlock()
	for range min(wanting, regionsPerTick) {
		g := r.withoutMemory()
		if g == nil {
			return
		}
		for at := 0; at < len(g.memory); at += 4 << 10 {
			g.memory[at] = 0 // has the kernel find a page
		}
		r.offer(g)
	}
	for range min(unneeded, regionsPerTick) {
		g := r.withdraw()
		if g == nil {
			return
		}
		if g.held = !r.forget(g.memory); g.held {
			r.offer(g)
			return
		}
	}
}

// withoutMemory returns the lowest region without memory, or a new one; nil if there is no more
// address space. r.ticking is held.
func (r *regions) withoutMemory() *region {
	for _, g := range r.all {
		if !g.held {
			return g
		}
	}
	if len(r.rest) == 0 {
		if r.rest = r.mapArea(); len(r.rest) == 0 {
			return nil
		}
	}
	g := &region{of: r, place: len(r.all), memory: r.rest[:regionSize:regionSize]}
	r.rest = r.rest[regionSize:]
	for i := range g.chunks {
		at := i * largeChunk
		g.chunks[i].b = g.memory[at : at+largeChunk : at+largeChunk]
		g.chunks[i].home, g.chunks[i].slot = g, uint8(i)
	}
	r.mu.Lock()
	r.all = append(r.all, g)
	r.mu.Unlock()
	return g
}

// offer lets a region lend its chunks.
func (r *regions) offer(g *region) {
	g.held = true
	r.mu.Lock()
	defer r.mu.Unlock()
	g.free = allFree
	r.spare++
	r.first = min(r.first, g.place)
}

// withdraw takes the highest region that has lent nothing from what can be lent, nil if there is none.
func (r *regions) withdraw() *region {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.all) - 1; i >= 0; i-- {
		if g := r.all[i]; g.free == allFree {
			g.free = 0
			r.spare--
			r.least = min(r.least, r.spare)
			return g
		}
	}
	return nil
}
