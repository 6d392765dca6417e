package demo

import (
	"context"
	"fmt"
	"strings"

	"sluice/sample"
)

// stage is what a scenario plays on: running model servers, and a gateway in front
// of them that serves what the rollout publishes.
type stage struct {
	Config
	versions []*sample.Model
	replicas *replicas
	rollout  *rollout
	gateway  Gateway
}

// scenario is something that the demo shows.
type scenario struct {
	name, short string
	show        func(ctx context.Context, s *stage) error
}

// scenarios are what there is to see, the usual one first.
var scenarios = []scenario{
	{"rollout", "the split moves from one version to the other", showRollout},
	{"canary-fails", "a canary fails, is cut off, heals, and gets its calls back", showCanary},
	{"drift", "what is asked moves in one feature, and that one is raised", showDrift},
	{"shadow", "a third version gets copies of all calls, and what it would have said is compared", showShadow},
}

// Scenarios describes each scenario in a line, by name.
func Scenarios() map[string]string {
	all := make(map[string]string, len(scenarios))
	for _, s := range scenarios {
		all[s.name] = s.short
	}
	return all
}

// scenarioOf returns the scenario of a name; an empty one is the usual.
func scenarioOf(name string) (scenario, error) {
	var names []string
	for _, s := range scenarios {
		if s.name == name || name == "" {
			return s, nil
		}
		names = append(names, s.name)
	}
	return scenario{}, fmt.Errorf("scenario: got %q, want one of %s", name, strings.Join(names, ", "))
}
