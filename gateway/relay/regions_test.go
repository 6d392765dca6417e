package relay

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"unsafe"
)

// testRegions are regions of Go's memory whose giving back is seen.
func testRegions(areas int) (r *regions, forgotten func() int) {
	var mu sync.Mutex
	n := 0
	r = &regions{
		mapArea: func() []byte {
			if areas == 0 {
				return nil
			}
			areas--
			return make([]byte, 4*regionSize)
		},
		forget: func(m []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			n++
			clear(m) // as the system does
			return true
		},
	}
	return r, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// TestChunksOfRegionsAreDistinct: many goroutines take chunks, fill them, and find what they have
// written until they give them back, while the memory of free regions is given back.
func TestChunksOfRegionsAreDistinct(t *testing.T) {
	t.Parallel()
	r, forgotten := testRegions(8)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			type filled struct {
				c    *chunk
				with byte
			}
			var mine []filled
			for range 3000 {
				most := random.IntN(60) // at times few, so that regions become free
				for len(mine) > most {
					i := random.IntN(len(mine))
					f := mine[i]
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
					if f.c.b[0] != f.with || f.c.b[largeChunk-1] != f.with {
						t.Errorf("a chunk of worker %d was written to by somebody else", worker)
					}
					f.c.home.put(f.c)
				}
				if c := r.get(); c != nil {
					with := byte(worker<<4 | random.IntN(16))
					c.b[0], c.b[largeChunk-1] = with, with
					mine = append(mine, filled{c, with})
				}
			}
			for _, f := range mine {
				f.c.home.put(f.c)
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	for giving := true; giving; runtime.Gosched() {
		select {
		case <-done:
			giving = false
		default:
			r.giveBack()
		}
	}
	for range 100 {
		r.giveBack()
	}
	held := 0
	for _, g := range r.all {
		if g.free != allFree {
			t.Errorf("region %d has chunks that were not given back: %b", g.place, g.free)
		}
		if g.held {
			held++
		}
	}
	if held != 0 || r.spare != 0 || forgotten() == 0 {
		t.Errorf("%d regions hold memory, %d are spare, %d times some was given back; want none, none and some", held, r.spare, forgotten())
	}
}

// TestLowRegionsAreUsedFirst, so that those of a time with more work become free.
func TestLowRegionsAreUsedFirst(t *testing.T) {
	t.Parallel()
	r, _ := testRegions(1)
	var all []*chunk
	for range 4 * chunksPerRegion {
		all = append(all, r.get())
	}
	if c := r.get(); c != nil {
		t.Fatal("more chunks than there is memory")
	}
	for _, i := range []int{3*chunksPerRegion + 1, 2 * chunksPerRegion, 5, chunksPerRegion} {
		all[i].home.put(all[i])
	}
	for _, want := range []int{0, 1, 2, 3} {
		if c := r.get(); c == nil || c.home.place != want {
			t.Errorf("chunk %+v, want one of region %d", c, want)
		}
	}
}

// TestOnlyWhatIsNotNeededIsGivenBack: memory that a load takes again and again stays, and what it does
// not take any more goes by and by.
func TestOnlyWhatIsNotNeededIsGivenBack(t *testing.T) {
	t.Parallel()
	r, forgotten := testRegions(2)
	use := func(n int) {
		var all []*chunk
		for range n * chunksPerRegion {
			all = append(all, r.get())
		}
		for _, c := range all {
			c.home.put(c)
		}
	}
	use(8)
	r.giveBack() // all were needed until now
	for range 10 {
		use(8)
		r.giveBack()
	}
	if n := forgotten(); n != 0 {
		t.Errorf("%d regions were given back though they were needed", n)
	}
	use(2)
	r.giveBack()
	if n := forgotten(); n != 2 {
		t.Errorf("%d of 6 regions were given back at once, want 2", n)
	}
	for range 20 {
		use(2)
		r.giveBack()
	}
	if n := forgotten(); n != 6 || r.spare != 2 {
		t.Errorf("%d regions were given back and %d stay, want 6 and 2", n, r.spare)
	}
	for range 3 {
		r.giveBack()
	}
	if n := forgotten(); n != 8 || r.spare != 0 {
		t.Errorf("%d regions were given back and %d stay, want all", n, r.spare)
	}
	use(8)
	if r.spare != 8 {
		t.Errorf("%d regions hold memory after all were used again, want 8", r.spare)
	}
}

// TestNobodyGetsWhatIsBeingGivenBack, and everybody may have it afterwards.
func TestNobodyGetsWhatIsBeingGivenBack(t *testing.T) {
	t.Parallel()
	r, _ := testRegions(1)
	var meanwhile *chunk
	r.forget = func([]byte) bool {
		meanwhile = r.get()
		return true
	}
	c := r.get()
	c.home.put(c)
	r.giveBack()
	r.giveBack()
	if meanwhile == nil || meanwhile.home.place != 1 {
		t.Fatalf("a chunk %+v, want one of another region", meanwhile)
	}
	if c := r.get(); c.home.place != 0 {
		t.Errorf("afterwards a chunk of region %d, want the lowest", c.home.place)
	}
}

// TestMemoryOfTheSystem is aligned as huge pages are, can be written to, and is empty after it was given back.
func TestMemoryOfTheSystem(t *testing.T) {
	t.Parallel()
	area := mapArea()
	if area == nil {
		if runtime.GOOS == "linux" {
			t.Fatal("there is none")
		}
		return
	}
	r := regions{mapArea: func() []byte { return area }, forget: forgetMemory}
	c := r.get()
	if at := uintptr(unsafe.Pointer(unsafe.SliceData(c.home.memory))) % regionSize; at != 0 || len(area)%regionSize != 0 {
		t.Errorf("the area begins %d bytes behind a huge page's begin and has %d bytes", at, len(area))
	}
	copy(c.b, bytes.Repeat([]byte{1}, largeChunk))
	c.home.put(c)
	r.giveBack()
	r.giveBack()
	if c.home.held || c.b[0] != 0 || c.b[largeChunk-1] != 0 {
		t.Errorf("held %v, the memory begins with %d: want it given back", c.home.held, c.b[0])
	}
}
