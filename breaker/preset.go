package breaker

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// Preset is a kind of model server: which of its answers are its own failures. The zero value is
// Generic.
type Preset uint8

// The presets, named as in a routing document's server field.
const (
	Generic Preset = iota
	Triton
	KServe
	MLServer
	TFServing
	OpenVINO
	TorchServe
)

var presetNames = [...]string{"generic", "triton", "kserve", "mlserver", "tfserving", "openvino", "torchserve"}

// String returns the preset's name.
func (p Preset) String() string { return presetNames[p] }

// ParsePreset returns the preset of that name; the empty name means Generic.
func ParsePreset(name string) (Preset, error) {
	if name == "" {
		return Generic, nil
	}
	if i := slices.Index(presetNames[:], name); i >= 0 {
		return Preset(i), nil
	}
	return Generic, fmt.Errorf("server: got %q, want one of %s", name, strings.Join(presetNames[:], ", "))
}

// inBandErrors reports whether messages of an OK stream can carry an error. Triton's
// ModelStreamInfer answers with error_message instead of a status.
func (p Preset) inBandErrors() bool { return p == Triton }

// failureCodes and overloadedCode say what a status from a server means, for every preset: servers
// differ in when they use a code (MLServer's plain exceptions come as UNKNOWN, Triton shuts down with
// UNAVAILABLE, KServe's Python server reports inference errors as INVALID_ARGUMENT), not in which
// codes can be trusted to be their own fault.
const (
	failureCodes codeSet = 1<<codes.Unknown | 1<<codes.DeadlineExceeded | 1<<codes.Internal |
		1<<codes.Unavailable | 1<<codes.DataLoss
	overloadedCode = codes.ResourceExhausted
)

// codeSet is a set of gRPC codes, one bit each. A code outside of gRPC's list is in no set.
type codeSet uint32

func (s codeSet) has(c codes.Code) bool { return c < 32 && s&(1<<c) != 0 }
