package relay

import (
	"math/bits"
	"sync"
)

// Large chunks come from regions of memory that the kernel is asked to map by huge pages, for which
// most systems want to be asked and Go does not ask: what is kept of large requests is in no cache, and
// looking up its pages of 4 KiB took a tenth of the time of a request of 1 MiB (docs/performance.md).

// regionSize is that of a huge page on x86-64, and on arm64 with pages of 4 KiB (Linux,
// Documentation/admin-guide/mm/transhuge.rst).
const regionSize = 2 << 20

// areaSize is how much address space is taken at once, of which only what is used takes memory.
const areaSize = 64 << 20

const chunksPerRegion = regionSize / largeChunk

// allFree has a bit for every chunk of a region.
const allFree = 1<<chunksPerRegion - 1

// region is one huge page, if the kernel has one left.
type region struct {
	of     *regions
	place  int
	memory []byte
	chunks [chunksPerRegion]chunk
	free   uint64 // a bit for each chunk, guarded by of.mu
	held   bool   // takes memory, as far as is known; guarded by of.mu
}

// regions lends out large chunks. It may be used by many goroutines at once; what it does under
// its lock does not wait for the system, except for more address space. Regions are kept for good, so
// that nothing points to where there is nothing; their memory is given back by giveBack.
type regions struct {
	mapArea func() []byte                   // a multiple of regionSize, nil if there is no more
	forget  func(memory []byte) (gone bool) // gives memory back to the system; the address space stays

	mu    sync.Mutex
	all   []*region
	rest  []byte // of the last area
	first int    // no region before it has a free chunk
	spare int    // regions that hold memory and are wholly free
	least int    // the fewest spare ones since giveBack was called
}

// largeMemory is for the whole process, as the pools are.
var largeMemory = regions{mapArea: mapArea, forget: forgetMemory}

// get returns a chunk, nil if there is no memory of this kind. The lowest region that has one
// lends it, so that the others become free.
func (r *regions) get() *chunk {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.first < len(r.all) && r.all[r.first].free == 0 {
		r.first++
	}
	if r.first == len(r.all) && !r.grow() {
		return nil
	}
	g := r.all[r.first]
	if g.free == allFree && g.held {
		r.spare--
		r.least = min(r.least, r.spare)
	}
	g.held = true
	i := bits.TrailingZeros64(g.free)
	g.free &^= 1 << i
	return &g.chunks[i]
}

// put takes back a chunk that nobody holds.
func (g *region) put(c *chunk) {
	r := g.of
	r.mu.Lock()
	defer r.mu.Unlock()
	g.free |= 1 << c.slot
	r.first = min(r.first, g.place)
	if g.free == allFree {
		r.spare++
	}
}

// grow adds a region; r.mu is held.
func (r *regions) grow() bool {
	if len(r.rest) == 0 {
		r.rest = r.mapArea()
	}
	if len(r.rest) < regionSize {
		return false
	}
	g := &region{of: r, place: len(r.all), memory: r.rest[:regionSize:regionSize], free: allFree}
	r.rest = r.rest[regionSize:]
	for i := range g.chunks {
		at := i * largeChunk
		g.chunks[i].b = g.memory[at : at+largeChunk : at+largeChunk]
		g.chunks[i].home, g.chunks[i].slot = g, uint8(i)
	}
	r.all = append(r.all, g)
	return true
}

// giveBack gives back a quarter of the memory that was not needed since it was called last.
func (r *regions) giveBack() {
	r.mu.Lock()
	var unneeded []*region
	n := (r.least + 3) / 4
	for i := len(r.all) - 1; i >= 0 && len(unneeded) < n; i-- {
		if g := r.all[i]; g.free == allFree && g.held {
			g.free = 0 // nobody gets it meanwhile
			unneeded = append(unneeded, g)
		}
	}
	r.spare -= len(unneeded)
	r.mu.Unlock()
	for _, g := range unneeded {
		gone := r.forget(g.memory)
		r.mu.Lock()
		g.free, g.held = allFree, !gone
		r.first = min(r.first, g.place)
		if g.held {
			r.spare++
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	r.least = r.spare
	r.mu.Unlock()
}
