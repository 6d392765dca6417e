package relay

import (
	"syscall"
	"unsafe"
)

// The sockets are non-blocking, so a read or write returns at once, and the
// scheduler need not be told of it: a system call that it knows of makes it hand
// the processor over when it lasts some twenty microseconds, as writing to a
// loopback socket does, and waking a thread for that costs more than the call.

func rawRead(fd int, p []byte) (int, error) { return rawIO(syscall.SYS_READ, fd, p) }

func rawWrite(fd int, p []byte) (int, error) { return rawIO(syscall.SYS_WRITE, fd, p) }

func rawIO(trap uintptr, fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, _, e := syscall.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
