package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Build runs `go build` in a folder, as [Go] does.
func Build(ctx context.Context, folder string, env []string, args ...string) error {
	return Go(ctx, folder, env, append([]string{"build"}, args...)...)
}

// Go runs the go command in a folder, in a process group of its own: when ctx ends,
// its compilers and linkers end with it. env is added to this process's.
func Go(ctx context.Context, folder string, env []string, args ...string) error {
	build := exec.CommandContext(ctx, "go", args...)
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
