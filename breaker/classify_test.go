package breaker

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

func TestClassifyStatus(t *testing.T) {
	want := map[codes.Code]Outcome{
		codes.OK:                 Success,
		codes.Canceled:           Excluded,
		codes.Unknown:            Failure,
		codes.InvalidArgument:    Excluded,
		codes.DeadlineExceeded:   Failure,
		codes.NotFound:           Excluded,
		codes.AlreadyExists:      Excluded,
		codes.PermissionDenied:   Excluded,
		codes.ResourceExhausted:  Overloaded,
		codes.FailedPrecondition: Excluded,
		codes.Aborted:            Excluded,
		codes.OutOfRange:         Excluded,
		codes.Unimplemented:      Excluded,
		codes.Internal:           Failure,
		codes.Unavailable:        Failure,
		codes.DataLoss:           Failure,
		codes.Unauthenticated:    Excluded,
		17:                       Excluded, // no code of gRPC's
		32 + codes.Internal:      Excluded, // nor is this, although it is Internal modulo 32
	}
	for i := range presetNames {
		for code, outcome := range want {
			for _, kind := range []Kind{Answered, Invalid} {
				if got := Classify(Preset(i), Thresholds{}, Attempt{Kind: kind, Code: code}); got != outcome {
					t.Errorf("%v: kind %d, %v is %v, want %v", Preset(i), kind, code, got, outcome)
				}
			}
		}
	}
}

func TestClassifyAttempt(t *testing.T) {
	thresholds := Thresholds{Slow: 2 * time.Second, Patience: time.Second}
	for _, c := range []struct {
		name    string
		preset  Preset
		attempt Attempt
		want    Outcome
	}{
		{"as slow as allowed", Generic, Attempt{Latency: 2 * time.Second}, Success},
		{"slower", Generic, Attempt{Latency: 2*time.Second + 1}, Slow},
		{"slow failure", Generic, Attempt{Code: codes.Internal, Latency: 3 * time.Second}, Failure},
		{"in-band error of a Triton stream", Triton, Attempt{InBandError: true}, Failure},
		{"in-band error, client gone", Triton, Attempt{Kind: Canceled, InBandError: true}, Excluded},
		{"in-band field of another server", MLServer, Attempt{InBandError: true}, Success},
		{"impatient caller", Generic, Attempt{Kind: Deadline, Had: time.Second - 1}, Excluded},
		{"patient caller", Generic, Attempt{Kind: Deadline, Had: time.Second}, Failure},
		{"deadline passed before the attempt", Generic, Attempt{Kind: Deadline, Had: -1}, Excluded},
		{"idle stream without deadline", Generic, Attempt{Kind: Deadline}, Failure},
		{"server knew the deadline, impatient caller", Generic, Attempt{Code: codes.DeadlineExceeded, Had: 1}, Excluded},
		{"server knew the deadline", Generic, Attempt{Code: codes.DeadlineExceeded, Had: time.Minute}, Failure},
		{"never processed", Generic, Attempt{Kind: Unprocessed, Code: codes.Unavailable}, Overloaded},
		{"stream reset by the server", Generic, Attempt{Kind: Reset, Code: codes.Internal}, Failure},
		{"stream canceled by the server", Generic, Attempt{Kind: Reset, Code: codes.Canceled}, Failure},
		{"stream reset to calm the gateway", Generic, Attempt{Kind: Reset, Code: codes.ResourceExhausted}, Overloaded},
		{"connection lost", Generic, Attempt{Kind: Lost, Code: codes.Unavailable}, Failure},
		{"no connection", Generic, Attempt{Kind: Unreachable, Code: codes.Unavailable}, Failure},
		{"client gone", Generic, Attempt{Kind: Canceled, Code: codes.Canceled}, Excluded},
		{"refused by the gateway", Generic, Attempt{Kind: OwnRefusal, Code: codes.Internal}, Excluded},
	} {
		if got := Classify(c.preset, thresholds, c.attempt); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestNoAnswerIsSlowWithoutThreshold(t *testing.T) {
	if got := Classify(Generic, Thresholds{}, Attempt{Latency: time.Hour}); got != Success {
		t.Errorf("an hour without slow_call: %v, want success", got)
	}
}

func TestParsePreset(t *testing.T) {
	for i, name := range presetNames {
		if p, err := ParsePreset(name); err != nil || p != Preset(i) || p.String() != name {
			t.Errorf("ParsePreset(%q) = %v, %v", name, p, err)
		}
	}
	if p, err := ParsePreset(""); err != nil || p != Generic {
		t.Errorf(`ParsePreset("") = %v, %v`, p, err)
	}
	_, err := ParsePreset("vllm")
	const want = `server: got "vllm", want one of generic, triton, kserve, mlserver, tfserving, openvino, torchserve`
	if err == nil || err.Error() != want {
		t.Errorf("ParsePreset: %v, want %s", err, want)
	}
}
