package demo

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestPacerSpacesCallsEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{interval: 10 * time.Millisecond}
		begin := time.Now()
		for i := range 100 {
			if !p.wait(t.Context()) {
				t.Fatal("wait() = false before the context ended")
			}
			if want := time.Duration(i) * p.interval; time.Since(begin) != want {
				t.Fatalf("turn %d came after %v, want %v", i, time.Since(begin), want)
			}
		}
	})
}

func TestPacerGivesUpWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{interval: 10 * time.Millisecond}
		p.wait(t.Context())
		time.Sleep(time.Second) // a hundred turns
		begin := time.Now()
		for range 3 {
			p.wait(t.Context())
		}
		if took := time.Since(begin); took != 20*time.Millisecond {
			t.Errorf("three turns after a pause took %v, want 20ms: no burst", took)
		}
	})
}

func TestPacerEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{interval: time.Hour}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p.wait(ctx)
		begin := time.Now()
		if p.wait(ctx) || time.Since(begin) != time.Second {
			t.Errorf("wait() ended after %v, want false after 1s", time.Since(begin))
		}
	})
}
