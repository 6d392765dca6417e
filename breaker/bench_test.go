package breaker

import (
	"testing"
	"time"

	"github.com/sony/gobreaker/v2"
)

// The plain path of a call: everything closed, everything good.
func BenchmarkPlain(b *testing.B) {
	start := time.Now()
	v := NewGroup().Update("fraud v8", VersionSettings{}, start)
	e := v.Endpoint("10.0.0.8:8001", start)
	budget := NewBudget(start)
	good := Result{Outcome: Success, At: start, Latency: 3 * time.Millisecond}

	b.Run("version", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := v.Allow(start, Normal)
			if err != nil {
				b.Fatal(err)
			}
			p.Done(good)
		}
	})
	b.Run("endpoint", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := e.Allow(start)
			if err != nil {
				b.Fatal(err)
			}
			p.Done(good)
		}
	})
	b.Run("budget", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			budget.Call(start)
		}
	})
	b.Run("classify", func(b *testing.B) {
		b.ReportAllocs()
		a := Attempt{Latency: time.Millisecond, Had: time.Second}
		for b.Loop() {
			if v.Classify(a) != Success {
				b.Fatal("not a success")
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		a := Attempt{Latency: time.Millisecond, Had: time.Second}
		for b.Loop() {
			p, err := v.Allow(start, Normal)
			if err != nil {
				b.Fatal(err)
			}
			q, err := e.Allow(start)
			if err != nil {
				b.Fatal(err)
			}
			budget.Call(start)
			r := Result{Outcome: v.Classify(a), At: start, Latency: a.Latency}
			q.Done(r)
			p.Done(r)
		}
	})
}

// The plain path from all processors at once, on one version.
func BenchmarkContended(b *testing.B) {
	start := time.Now()
	v := NewGroup().Update("fraud v8", VersionSettings{}, start)
	good := Result{Outcome: Success, At: start, Latency: 3 * time.Millisecond}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, err := v.Allow(start, Normal)
			if err != nil {
				b.Error(err)
				return
			}
			p.Done(good)
		}
	})
}

// What gobreaker's own two steps cost, for comparison with BenchmarkPlain/endpoint.
func BenchmarkTwoStep(b *testing.B) {
	m := gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{})
	b.ReportAllocs()
	for b.Loop() {
		done, err := m.Allow()
		if err != nil {
			b.Fatal(err)
		}
		done(nil)
	}
}

func BenchmarkRefused(b *testing.B) {
	start := time.Now()
	v := NewGroup().Update("fraud v8", VersionSettings{}, start)
	v.Breaker().ForceOpen(start)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Allow(start, Normal); err == nil {
			b.Fatal("admitted")
		}
	}
}

func BenchmarkAdaptive(b *testing.B) {
	start := time.Now()
	v := NewGroup().Update("fraud v8", VersionSettings{Limits: Limits{Adaptive: true}}, start)
	good := Result{Outcome: Success, At: start}
	b.ReportAllocs()
	for b.Loop() {
		p, err := v.Allow(start, Normal)
		if err != nil {
			b.Fatal(err)
		}
		p.Done(good)
	}
}
