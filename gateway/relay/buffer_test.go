package relay

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// A queue that borrows what another one keeps gives out the same bytes in the same order,
// also when the first owner has let go, and in the end everything is given back.
func TestBorrowedBytesAreTheSame(t *testing.T) {
	noise := rand.NewChaCha8([32]byte{7})
	rnd := rand.New(noise)
	for round := range 40 {
		kept, waiting := &budget{limit: 1 << 30}, &budget{limit: 1 << 30}
		var body, queue chunks
		var want, got []byte
		owned := true
		take := func(n int) {
			for ; n > 0 && queue.n > 0; n-- {
				p := queue.front()
				p = p[:1+rnd.IntN(len(p))]
				got = append(got, p...)
				queue.pop(len(p), waiting)
			}
		}
		for range 40 {
			p := make([]byte, 1+rnd.IntN(20<<10))
			_, _ = noise.Read(p)
			want = append(want, p...)
			if from := body.end(); owned && rnd.IntN(4) > 0 {
				body.append(p, kept)
				body.eachSince(from, func(p []byte, of *chunk) { queue.borrow(p, of, waiting) })
			} else {
				queue.append(p, waiting)
			}
			if waiting.used.Load() != int64(queue.charged) || queue.charged < queue.n {
				t.Fatalf("round %d: %d bytes are charged for %d, the queue says %d", round, waiting.used.Load(), queue.n, queue.charged)
			}
			if owned && rnd.IntN(30) == 0 {
				owned = false
				body.free(kept)
				var other chunks // would take what has been let go too early
				other.append(make([]byte, 4*largeChunk), kept)
				other.free(kept)
			}
			take(rnd.IntN(4))
		}
		if rnd.IntN(4) == 0 {
			queue.free(waiting)
			want = want[:len(got)]
		}
		take(1 << 30)
		body.free(kept)
		if !bytes.Equal(got, want) {
			t.Fatalf("round %d: %d bytes came out, want %d, and the same", round, len(got), len(want))
		}
		if k, w := kept.used.Load(), waiting.used.Load(); k != 0 || w != 0 {
			t.Fatalf("round %d: %d and %d bytes stay charged", round, k, w)
		}
	}
}

// Pieces of any length that follow each other in what is kept take no more than what they were kept in,
// nor do they when another one is copied now and then.
func TestBorrowingIsChargedByTheChunk(t *testing.T) {
	kept, waiting := &budget{limit: 1 << 30}, &budget{limit: 1 << 30}
	var body, queue chunks
	for i := range 200 {
		from := body.end()
		body.append(make([]byte, []int{1, lendFrom}[i%2]), kept)
		body.eachSince(from, func(p []byte, of *chunk) {
			if i%50 == 49 {
				of = nil // a piece that does not lie in what is kept
			}
			queue.put(p, of, waiting)
		})
	}
	if most := queue.n + 8*largeChunk; queue.charged > most {
		t.Errorf("%d bytes are charged for %d, want at most %d", queue.charged, queue.n, most)
	}
	queue.free(waiting)
	body.free(kept)
}

// A chunk that was borrowed can be used again once both have let go.
func TestBorrowedChunkIsGivenBack(t *testing.T) {
	total := &budget{limit: 1 << 30}
	var body, queue chunks
	body.append(make([]byte, largeChunk), total)
	of := body.head
	queue.borrow(body.front()[:100], of, total)
	queue.borrow(body.front()[100:], of, total)
	body.free(total)
	if n := of.holders.Load(); n != 1 {
		t.Errorf("%d hold the chunk, want the queue alone", n)
	}
	queue.pop(100, total)
	queue.pop(queue.n, total)
	if n := of.holders.Load(); n != 0 {
		t.Errorf("%d hold the chunk, want nobody", n)
	}
}
