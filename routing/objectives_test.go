package routing

import (
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// TestAvailabilityIsTheShareThatWasWritten, to the last digit: it stands in metrics and log lines, and 1 minus it is a divisor.
func TestAvailabilityIsTheShareThatWasWritten(t *testing.T) {
	for percent, want := range map[float64]float64{50: .5, 99: .99, 99.5: .995, 99.9: .999, 99.95: .9995, 99.99: .9999, 99.999: .99999, 0: 0} {
		if got := newObjectives(&routingv1.SLO{Availability: percent}).Availability; got != want {
			t.Errorf("%v %% is %v, want %v", percent, got, want)
		}
	}
}
