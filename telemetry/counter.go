package telemetry

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// counter counts events, or bytes. Safe for concurrent use.
type counter struct {
	member
	desc  *prometheus.Desc
	begun time.Time
	n     atomic.Uint64
}

func newCounter(f *Family, values []string) *counter {
	return &counter{member: newMember(f, values), desc: f.desc, begun: time.Now()}
}

// Desc implements [prometheus.Metric].
func (c *counter) Desc() *prometheus.Desc { return c.desc }

// Write implements [prometheus.Metric].
func (c *counter) Write(out *dto.Metric) error {
	out.Label = prometheus.MakeLabelPairs(c.desc, c.values)
	out.Counter = &dto.Counter{Value: new(float64(c.n.Load())), CreatedTimestamp: timestamppb.New(c.begun)}
	return nil
}
