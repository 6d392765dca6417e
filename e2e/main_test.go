package e2e

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// roleVariable makes the test binary play another process: the value is a key of
// roles. Tests that kill a process need one of their own.
const roleVariable = "SLUICE_E2E_ROLE"

var roles = map[string]func() error{
	"backend": backendRole,
	"client":  clientRole,
	"echo":    echoRole,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(roleVariable); name != "" {
		role, ok := roles[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "%s: got %q, which is no role\n", roleVariable, name)
			os.Exit(2)
		}
		if err := role(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		removeBinary()
		os.Exit(code)
	}))
}
