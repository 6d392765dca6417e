package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Build runs `go build` in a folder, in a process group of its own: when ctx ends,
// its compilers and linkers end with it. env is added to this process's.
func Build(ctx context.Context, folder string, env []string, args ...string) error {
	build := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...)
	build.Dir = folder
	build.Env = append(os.Environ(), env...)
	build.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	build.Cancel = func() error { return syscall.Kill(-build.Process.Pid, syscall.SIGKILL) }
	output, err := build.CombinedOutput()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	return nil
}
