package load

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestArrivals(t *testing.T) {
	const rate, n = 1000, 100_000
	gaps := func(spread Arrivals) (mean, deviation float64) {
		s := newSchedule(rate, spread, rand.New(rand.NewPCG(1, 2)))
		last := s.due()
		var sum, squares float64
		for range n {
			s.advance()
			gap := (s.due() - last).Seconds()
			last = s.due()
			sum += gap
			squares += gap * gap
		}
		mean = sum / n
		return mean, math.Sqrt(squares/n - mean*mean)
	}
	// An exponential gap deviates by as much as its mean. With 100,000 gaps the error of
	// both is near 0.3 %.
	if mean, deviation := gaps(Poisson); math.Abs(mean*rate-1) > 0.02 || math.Abs(deviation*rate-1) > 0.02 {
		t.Errorf("poisson: gaps of %g s, deviating by %g, want %g for both", mean, deviation, 1.0/rate)
	}
	if mean, deviation := gaps(Constant); math.Abs(mean*rate-1) > 1e-6 || deviation > 1e-6 {
		t.Errorf("constant: gaps of %g s, deviating by %g, want %g and 0", mean, deviation, 1.0/rate)
	}
	if first := newSchedule(rate, Constant, nil).due(); first != 0 {
		t.Errorf("the first constant call is due at %v, want at once", first)
	}
	if err := new(Arrivals).Set("bursts"); err == nil {
		t.Error("arrivals called bursts are accepted")
	}
}

func TestMessagesAreCountedHoweverTheyAreCut(t *testing.T) {
	body := []byte{0, 0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 'd'}
	for cut := 1; cut <= len(body); cut++ {
		var m messages
		for p := body; len(p) > 0; {
			k := min(cut, len(p))
			m.add(p[:k])
			p = p[k:]
		}
		if m.n != 3 || !m.whole() {
			t.Errorf("pieces of %d: %d messages, whole %v, want 3", cut, m.n, m.whole())
		}
		m.add(body[:6])
		if m.n != 3 || m.whole() {
			t.Errorf("pieces of %d: %d messages, whole %v after a piece of one more", cut, m.n, m.whole())
		}
	}
}

func TestATimerIsNotEarlyAndEndsWhenClosed(t *testing.T) {
	timer, err := newTimer()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{0, -time.Second, time.Microsecond, 3 * time.Millisecond} {
		start := time.Now()
		if err := timer.sleep(d); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < d {
			t.Errorf("sleep(%v) took %v", d, took)
		}
	}
	ended := make(chan error)
	go func() { ended <- timer.sleep(time.Hour) }()
	time.Sleep(10 * time.Millisecond)
	if err := timer.close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Errorf("a sleep whose timer is closed ends with %v, want %v", err, os.ErrClosed)
	}
}

func TestLatenciesBeyondTheLongestAreCounted(t *testing.T) {
	p := newPhase(0, 0)
	p.begin()
	p.end(nil, &call{due: time.Second}, time.Second+Longest, "", false)
	p.begin()
	p.end(nil, &call{due: time.Second}, 2*time.Second+Longest, "", false)
	p.neverBegun(0, time.Hour)
	if p.result.TooLong != 2 || p.result.Latency.TotalCount() != 3 || p.result.Quantile(100) < Longest {
		t.Errorf("%d of %d too long, the longest %v; want 2 of 3, and %v or a little more", p.result.TooLong, p.result.Latency.TotalCount(), p.result.Quantile(100), Longest)
	}
}

func TestAQuantileStandsOnTenCallsBeyondIt(t *testing.T) {
	for _, test := range []struct {
		quantile float64
		calls    uint64
		want     bool
	}{
		{50, 20, true}, {50, 19, false}, {99, 1000, true}, {99, 999, false}, {99.9, 10_000, true}, {99.9, 9999, false},
	} {
		if got := Stands(test.quantile, test.calls); got != test.want {
			t.Errorf("Stands(%g, %d) = %v, want %v", test.quantile, test.calls, got, test.want)
		}
	}
}

func TestASmallerFrameThanHTTP2HasIsAnError(t *testing.T) {
	c := newConn(&Client{config: Config{Streams: 1}})
	if err := c.attach(discard{to: new(bytes.Buffer)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.handle(appendSettings(nil, http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxFrame}), 0); err != nil {
		t.Errorf("frames of %d bytes: %v", maxFrame, err)
	}
	if _, err := c.handle(appendSettings(nil, http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxFrame - 1}), 0); err == nil {
		t.Errorf("frames of %d bytes are taken for an offer", maxFrame-1)
	}
}

// FuzzFrames feeds what a hostile server might send: it must neither crash nor hang, and
// never take more than there is.
func FuzzFrames(f *testing.F) {
	f.Add(appendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}))
	f.Add(appendWindowUpdate(nil, 1, 1<<31-1))
	f.Add(append(appendReset(nil, 1, http2.ErrCodeCancel), appendFrameHeader(nil, 0, http2.FrameData, http2.FlagDataEndStream, 3)...))
	f.Add(append(appendFrameHeader(nil, 1, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1), 0x88))
	f.Add(appendFrameHeader(nil, 8, http2.FrameGoAway, 0, 0))
	f.Add(appendSettings(nil, http2.Setting{ID: http2.SettingMaxFrameSize}))
	f.Fuzz(func(t *testing.T, b []byte) {
		client := &Client{config: Config{Streams: 3, Message: make([]byte, 100)}}
		c := newConn(client)
		var hello bytes.Buffer
		if err := c.attach(discard{to: &hello}); err != nil {
			t.Fatal(err)
		}
		c.socket = discard{to: &hello}
		p := newPhase(0, 0)
		c.adopt(p)
		c.fill(0)
		if used, _ := c.handle(b, 1); used > len(b) {
			t.Errorf("used %d of %d bytes", used, len(b))
		}
		if p.open != len(c.calls) {
			t.Errorf("%d calls are open, the phase knows of %d", len(c.calls), p.open)
		}
	})
}
