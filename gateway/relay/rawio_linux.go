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

// maxPieces is how many pieces one system call takes: what is enough for a batch, and small
// enough for the stack.
const maxPieces = 64

// rawWritev writes pieces, from an offset in the first one on, as far as that goes at once.
func rawWritev(fd int, pieces [][]byte, skip int) (int, error) {
	if len(pieces) == 1 {
		return rawWrite(fd, pieces[0][skip:])
	}
	var v [maxPieces]syscall.Iovec
	n := 0
	for _, p := range pieces[:min(len(pieces), maxPieces)] {
		if p = p[skip:]; len(p) > 0 {
			v[n].Base = unsafe.SliceData(p)
			v[n].SetLen(len(p))
			n++
		}
		skip = 0
	}
	if n == 0 {
		return 0, nil
	}
	done, _, e := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v)), uintptr(n))
	if e != 0 {
		return 0, e
	}
	return int(done), nil
}

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
