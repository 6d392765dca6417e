//go:build !linux

package relay

import "syscall"

func rawRead(fd int, p []byte) (int, error)  { return syscall.Read(fd, p) }
func rawWrite(fd int, p []byte) (int, error) { return syscall.Write(fd, p) }

func rawWritev(fd int, pieces [][]byte, skip int) (int, error) { return rawWrite(fd, pieces[0][skip:]) }
