package relay

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"unsafe"
)

// inGoMemory makes regions of Go's memory, where the race detector looks, also for what is used
// after it was given back.
func inGoMemory(areas int) *regions {
	return &regions{
		mapArea: func() []byte {
			if areas == 0 {
				return nil
			}
			areas--
			return make([]byte, 8*regionSize)
		},
		forget: func(m []byte) bool { clear(m); return true },
	}
}

// take takes so many chunks.
func (r *regions) take(n int) []*chunk {
	var all []*chunk
	for range n {
		all = append(all, r.get())
	}
	return all
}

func (r *regions) putAll(all []*chunk) {
	for _, c := range all {
		r.put(c)
	}
}

// held counts the regions that have memory.
func (r *regions) held() (n int) {
	for _, g := range r.all {
		if g.held {
			n++
		}
	}
	return n
}

// grown returns regions of which so many have memory and have lent nothing.
func grown(n int) *regions {
	r := inGoMemory(8)
	all := r.take(n * chunksPerRegion)
	for r.held() < n {
		r.tick()
	}
	r.putAll(all)
	r.tick() // its past begins here
	return r
}

// TestChunksOfRegionsAreDistinct: many goroutines take chunks, fill them, and find what they have
// written until they give them back, while regions come and go.
func TestChunksOfRegionsAreDistinct(t *testing.T) {
	t.Parallel()
	r := inGoMemory(8)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			type filled struct {
				c    *chunk
				with byte
			}
			var mine []filled
			check := func(f filled) {
				if f.c.b[0] != f.with || f.c.b[largeChunk-1] != f.with {
					t.Errorf("a chunk of worker %d was written to by somebody else", worker)
				}
				r.put(f.c)
			}
			for range 3000 {
				most := random.IntN(60) // at times few, so that regions become free
				for len(mine) > most {
					i := random.IntN(len(mine))
					check(mine[i])
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
				}
				f := filled{r.get(), byte(worker<<4 | random.IntN(16))}
				f.c.b[0], f.c.b[largeChunk-1] = f.with, f.with
				mine = append(mine, f)
			}
			for _, f := range mine {
				check(f)
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	for ticking := true; ticking; runtime.Gosched() {
		select {
		case <-done:
			ticking = false
		default:
			r.tick()
		}
	}
	r.tick() // adds what was wanting
	for range 100 {
		r.tick()
	}
	for _, g := range r.all {
		if want := map[bool]uint64{true: allFree}[g.held]; g.free != want {
			t.Errorf("region %d, with memory: %t, can lend %b, want %b", g.place, g.held, g.free, want)
		}
	}
	if n := r.held(); n != r.spare || n >= 4 || r.outside != 0 {
		t.Errorf("%d regions have memory, %d are spare, %d chunks are outside: want few, all, and none", n, r.spare, r.outside)
	}
}

// TestRegionsComeAfterTheyWereWanting: nobody waits for memory; what was wanting at once, and not
// how often, decides how much comes.
func TestRegionsComeAfterTheyWereWanting(t *testing.T) {
	t.Parallel()
	r := inGoMemory(8)
	for range 50 {
		r.putAll(r.take(chunksPerRegion + 1))
	}
	if len(r.all) != 0 {
		t.Fatalf("%d regions before a tick, want none", len(r.all))
	}
	r.tick()
	if n := r.held(); n != 2 {
		t.Errorf("%d regions, want 2 for %d chunks at once", n, chunksPerRegion+1)
	}
	all := r.take(2*chunksPerRegion + 1)
	if first, last := all[0], all[len(all)-1]; first.home == nil || last.home != nil || r.outside != 1 {
		t.Errorf("the first chunk is of %v, the last of %v, %d are outside: want a region, none, and 1", first.home, last.home, r.outside)
	}
	r.tick()
	if n := r.held(); n != 3 {
		t.Errorf("%d regions, want 3", n)
	}
	r.putAll(all)
	if r.spare != 3 || r.outside != 0 {
		t.Errorf("%d regions are spare and %d chunks outside, want 3 and none", r.spare, r.outside)
	}
}

// TestLowRegionsAreUsedFirst, so that those of a time with more work become free.
func TestLowRegionsAreUsedFirst(t *testing.T) {
	t.Parallel()
	r := grown(4)
	all := r.take(4 * chunksPerRegion)
	for _, i := range []int{3*chunksPerRegion + 1, 2 * chunksPerRegion, 5, chunksPerRegion} {
		r.put(all[i])
	}
	for _, want := range []int{0, 1, 2, 3} {
		if c := r.get(); c.home == nil || c.home.place != want {
			t.Errorf("chunk %+v, want one of region %d", c, want)
		}
	}
}

// TestOnlyWhatIsNotNeededIsGivenBack: memory that a load takes again and again stays, and of what it
// does not take any more a quarter goes at a time, except for the last three regions.
func TestOnlyWhatIsNotNeededIsGivenBack(t *testing.T) {
	t.Parallel()
	r := grown(12)
	use := func(n int) { r.putAll(r.take(n * chunksPerRegion)) }
	for range 10 {
		use(12)
		r.tick()
	}
	if n := r.held(); n != 12 {
		t.Errorf("%d of 12 regions are left though all were needed", n)
	}
	use(2)
	r.tick()
	if n := r.held(); n != 10 {
		t.Errorf("%d of 12 regions are left, want a quarter of the ten unneeded ones given back", n)
	}
	for range 30 {
		use(2)
		r.tick()
	}
	if n := r.held(); n != 2+3 || r.spare != n {
		t.Errorf("%d regions are left, %d of them spare, want 5", n, r.spare)
	}
	all := r.take(12 * chunksPerRegion)
	r.tick()
	if n := r.held(); n != 12 || len(r.all) != 12 {
		t.Errorf("%d of %d regions have memory, want 12 of 12: the same again", n, len(r.all))
	}
	if c := r.get(); c.home != r.all[5] {
		t.Errorf("a chunk of %+v, want one of the lowest region that has come", c.home)
	}
	r.putAll(all)
}

// TestNobodyGetsWhatIsBeingGivenBack, and it can be lent again where the system did not take it.
func TestNobodyGetsWhatIsBeingGivenBack(t *testing.T) {
	t.Parallel()
	r := grown(4)
	var meanwhile []*chunk
	r.forget = func([]byte) bool {
		meanwhile = r.take(4 * chunksPerRegion)
		return false
	}
	r.tick()
	inside := 0
	for _, c := range meanwhile {
		if c.home != nil {
			inside++
		}
		if c.home == r.all[3] {
			t.Fatal("a chunk of the region that is being given back")
		}
	}
	if inside != 3*chunksPerRegion {
		t.Errorf("%d chunks of regions, want those of three", inside)
	}
	r.putAll(meanwhile)
	if n := r.held(); n != 4 || r.spare != 4 || r.get().home != r.all[0] {
		t.Errorf("%d regions have memory, %d are spare, want 4: the system did not take any", n, r.spare)
	}
	if all := r.take(4*chunksPerRegion - 1); all[len(all)-1].home != r.all[3] {
		t.Error("the region that was not taken lends nothing")
	}
}

// TestWithoutRegions chunks are Go's memory.
func TestWithoutRegions(t *testing.T) {
	t.Parallel()
	r := inGoMemory(0)
	all := r.take(3)
	r.tick()
	r.putAll(all)
	if c := r.get(); c.home != nil || len(c.b) != largeChunk || len(r.all) != 0 {
		t.Errorf("chunk of %d bytes of %v, want one of Go's", len(c.b), c.home)
	}
}

// TestMemoryOfTheSystem begins where huge pages do, can be written to, and is empty after it was given back.
func TestMemoryOfTheSystem(t *testing.T) {
	t.Parallel()
	area := mapArea()
	if area == nil {
		if runtime.GOOS == "linux" {
			t.Fatal("there is none")
		}
		return
	}
	if at := uintptr(unsafe.Pointer(unsafe.SliceData(area))) % regionSize; at != 0 || len(area)%regionSize != 0 {
		t.Errorf("the area begins %d bytes behind a huge page's begin and has %d bytes", at, len(area))
	}
	copy(area[regionSize:], bytes.Repeat([]byte{1}, regionSize))
	if !forgetMemory(area[regionSize:2*regionSize]) || area[regionSize] != 0 || area[2*regionSize-1] != 0 {
		t.Errorf("the memory begins with %d and ends with %d, want it given back", area[regionSize], area[2*regionSize-1])
	}
}
