package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/bench/load"
)

// benchResult is what sluice bench -o json writes. Times are in microseconds unless the
// name says otherwise.
type benchResult struct {
	Address        string            `json:"address"`
	Method         string            `json:"method"`
	RequestBytes   int               `json:"request_bytes"` // framed
	Connections    int               `json:"connections"`
	Streams        int               `json:"streams"`
	Rate           float64           `json:"rate,omitempty"` // asked for; none in the closed loop
	Arrivals       string            `json:"arrivals,omitempty"`
	Seconds        float64           `json:"seconds"`
	Calls          uint64            `json:"calls"`
	OK             uint64            `json:"ok"`
	Failures       map[string]uint64 `json:"failures,omitempty"`
	Said           map[string]string `json:"said,omitempty"` // the grpc-message of the first failure of a kind
	PerSecond      float64           `json:"ok_per_second"`
	AnswerMessages uint64            `json:"answer_messages"`
	AnswerBytes    uint64            `json:"answer_bytes"`
	Latency        latencies         `json:"latency"`
	Waited         uint64            `json:"waited_for_stream,omitempty"`
	Reconnects     uint64            `json:"reconnects,omitempty"`
	Generator      generatorCost     `json:"generator"`
}

// latencies are quantiles, in microseconds. Those of the tail that fewer than ten calls lie beyond are left out.
type latencies struct {
	Mean float64 `json:"mean_us"`
	P50  int64   `json:"p50_us"`
	P90  int64   `json:"p90_us,omitempty"`
	P99  int64   `json:"p99_us,omitempty"`
	P999 int64   `json:"p99_9_us,omitempty"`
	Max  int64   `json:"max_us"`
	// TooLong is how many took longer than two minutes, which count as that.
	TooLong uint64 `json:"over_2m,omitempty"`
}

// generatorCost is what the generator did to the measurement.
type generatorCost struct {
	CPUPerCall float64 `json:"cpu_us_per_call"`
	LagP50     int64   `json:"lag_p50_us"` // how late it began calls
	LagP99     int64   `json:"lag_p99_us"`
}

func (o *benchOptions) describe(r *load.Result) benchResult {
	out := benchResult{
		Address: o.config.Address, Method: o.config.Method, RequestBytes: len(o.config.Message),
		Connections: o.config.Connections, Streams: o.config.Streams, Rate: o.plan.Rate,
		Seconds: r.Elapsed.Seconds(), Calls: r.Calls(), OK: r.OK, Failures: r.Failures, Said: r.Said, PerSecond: r.PerSecond(),
		AnswerMessages: r.Messages, AnswerBytes: r.Bytes, Waited: r.Waited, Reconnects: r.Reconnects,
		Latency: latencies{
			Mean: r.Latency.Mean(), P50: r.Quantile(50).Microseconds(), P90: tail(r, 90).Microseconds(),
			P99: tail(r, 99).Microseconds(), P999: tail(r, 99.9).Microseconds(), Max: r.Latency.Max(), TooLong: r.TooLong,
		},
		Generator: generatorCost{
			CPUPerCall: float64(r.CPUPerCall().Nanoseconds()) / 1e3,
			LagP50:     r.Lag.ValueAtQuantile(50), LagP99: r.Lag.ValueAtQuantile(99),
		},
	}
	if o.plan.Rate > 0 {
		out.Arrivals = string(o.plan.Arrivals)
	}
	return out
}

// tail returns a quantile, in percent, or 0 if too few calls lie beyond it.
func tail(r *load.Result, q float64) time.Duration {
	if !load.Stands(q, uint64(r.Latency.TotalCount())) {
		return 0
	}
	return r.Quantile(q)
}

// write writes a result in the format of --output.
func (o *benchOptions) write(out io.Writer, r *load.Result) error {
	d := o.describe(r)
	if o.output == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(d)
	}
	loop := "closed loop"
	if d.Rate > 0 {
		loop = fmt.Sprintf("%s arrivals, %g per second", d.Arrivals, d.Rate)
	}
	fmt.Fprintf(out, "%s at %s, %d bytes, %d connections x %d streams, %s\n",
		d.Method, d.Address, d.RequestBytes, d.Connections, d.Streams, loop)
	fmt.Fprintf(out, "calls      %d in %.1f s, %d OK, %.0f OK per second\n", d.Calls, d.Seconds, d.OK, d.PerSecond)
	for _, what := range slices.Sorted(maps.Keys(d.Failures)) {
		fmt.Fprintf(out, "failed     %d %s", d.Failures[what], visible(what, 100))
		if said := d.Said[what]; said != "" {
			fmt.Fprintf(out, ", the first: %s", visible(said, 300))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "answers    %d messages, %d bytes\n", d.AnswerMessages, d.AnswerBytes)
	writeLatency(out, r)
	if d.Waited > 0 {
		fmt.Fprintf(out, "waited     %d calls were due while all streams were busy\n", d.Waited)
	}
	if d.Reconnects > 0 {
		fmt.Fprintf(out, "reconnects %d\n", d.Reconnects)
	}
	fmt.Fprintf(out, "generator  %.1f us of CPU per call", d.Generator.CPUPerCall)
	if r.Lag.TotalCount() > 0 {
		fmt.Fprintf(out, "; began calls late by p50 %d us, p99 %d us", d.Generator.LagP50, d.Generator.LagP99)
	}
	fmt.Fprintln(out)
	return nil
}

// writeLatency writes what is known of the latencies.
func writeLatency(out io.Writer, r *load.Result) {
	n := r.Latency.TotalCount()
	if n == 0 {
		return
	}
	fmt.Fprintf(out, "latency    p50 %s, ", rounded(r.Quantile(50)))
	var unknown []string
	for _, q := range []float64{90, 99, 99.9} {
		if d := tail(r, q); d > 0 {
			fmt.Fprintf(out, "p%g %s, ", q, rounded(d))
		} else {
			unknown = append(unknown, fmt.Sprintf("p%g", q))
		}
	}
	fmt.Fprintf(out, "max %s", rounded(r.Quantile(100)))
	if len(unknown) > 0 {
		fmt.Fprintf(out, "; no %s: of %d calls fewer than ten lie beyond", strings.Join(unknown, ", "), n)
	}
	fmt.Fprintln(out)
	if r.TooLong > 0 {
		fmt.Fprintf(out, "too long   %d calls took more than %v and count as that\n", r.TooLong, load.Longest)
	}
}

// writeProgress writes one line about the last second.
func writeProgress(out io.Writer, p load.Progress) {
	fmt.Fprintf(out, "%4.0fs  %8.0f OK/s  %d failed  %d open  p50 %s  p99 %s  max %s\n", p.At.Seconds(),
		float64(p.OK)/p.Interval.Seconds(), p.Failed, p.Open, rounded(p.P50), rounded(p.P99), rounded(p.Max))
}

// rounded shortens a latency to what matters of it; of the longest there are only bounds.
func rounded(d time.Duration) string {
	if d >= load.Longest {
		return ">2m"
	}
	for unit := time.Second; unit > time.Microsecond; unit /= 10 {
		if d >= 100*unit {
			return d.Round(unit).String()
		}
	}
	return d.Round(time.Microsecond).String()
}
