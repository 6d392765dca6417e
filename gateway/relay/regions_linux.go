package relay

import (
	"syscall"
	"unsafe"
)

// mapArea takes address space that begins where a huge page does. What is taken beyond that to have
// such a place stays unused.
func mapArea() []byte {
	if syscall.Getpagesize() != 4<<10 {
		return nil // huge pages have another size, too
	}
	m, err := syscall.Mmap(-1, 0, areaSize+regionSize, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	begin := int(-uintptr(unsafe.Pointer(unsafe.SliceData(m))) % regionSize) // up to the next multiple
	m = m[begin : begin+areaSize]
	_ = syscall.Madvise(m, syscall.MADV_HUGEPAGE) // a kernel without huge pages refuses: pages are small then
	return m
}

func forgetMemory(m []byte) bool { return syscall.Madvise(m, syscall.MADV_DONTNEED) == nil }
