package breaker_test

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/breaker"
)

func ExampleVersion_Allow() {
	now := time.Now()
	v8 := breaker.NewGroup().Update("fraud v8", breaker.VersionSettings{
		Settings: breaker.Settings{Consecutive: 3},
		Preset:   breaker.Triton,
	}, now)

	for {
		permit, err := v8.Allow(now, breaker.Normal)
		if errors.Is(err, breaker.ErrOpen) {
			fmt.Println(err)
			break
		}
		answer := breaker.Attempt{Kind: breaker.Answered, Code: codes.Internal}
		outcome := v8.Classify(answer)
		fmt.Println(outcome)
		permit.Done(breaker.Result{Outcome: outcome, At: now})
	}
	// Output:
	// failure
	// failure
	// failure
	// breaker: open
}
