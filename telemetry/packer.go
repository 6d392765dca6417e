package telemetry

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"hash/maphash"

	"github.com/klauspost/compress/flate"
)

// packer writes gzip (RFC 1952) of pieces of text that are compressed each by itself: none refers to what stands before
// it, and each ends where a byte does (a "sync flush" of RFC 1951). So a piece that has not changed since it was compressed
// is copied, whatever stands around it. What that costs is length: about twice that of one stream. It belongs to
// one goroutine.
type packer struct {
	out      *bufio.Writer
	deflater *flate.Writer
	deflated bytes.Buffer // what deflater makes
	sum      uint32       // of the text so far
	length   uint32       // likewise, modulo 2^32
	seed     maphash.Seed
	kept     map[textKey]*packed // pieces of the answer before
	used     map[textKey]*packed // pieces of this answer
}

// packed is a piece that is compressed. It does not change.
type packed struct {
	deflated []byte
	sum      uint32 // CRC-32 of the text
	shift    uint32 // what the text does to the CRC-32 of what stands before it; see shiftOf
	length   uint32
}

// textKey stands for a text: 96 bits of two sums, one of them seeded at random, and the length.
type textKey struct {
	hash        uint64
	sum, length uint32
}

func newPacker(out *bufio.Writer) *packer {
	d, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // there is such a level
	}
	return &packer{out: out, deflater: d, seed: maphash.MakeSeed(), kept: make(map[textKey]*packed), used: make(map[textKey]*packed)}
}

// begin begins an answer.
func (p *packer) begin() error {
	p.sum, p.length = 0, 0
	clear(p.used) // of an answer that nobody read to its end
	const fastest, unknown = 4, 255
	_, err := p.out.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, fastest, unknown})
	return err
}

// add writes a piece.
func (p *packer) add(k *packed) error {
	p.sum = multiply(p.sum, k.shift) ^ k.sum
	p.length += k.length
	_, err := p.out.Write(k.deflated)
	return err
}

// write writes a text that is not likely to come again.
func (p *packer) write(text []byte) error {
	sum := crc32.ChecksumIEEE(text)
	err := p.deflate(text)
	if err != nil {
		return err
	}
	return p.add(&packed{p.deflated.Bytes(), sum, shiftOf(len(text)), uint32(len(text))})
}

// keep writes a text, and keeps what it is compressed to until an answer comes without it.
func (p *packer) keep(text []byte) error {
	key := textKey{maphash.Bytes(p.seed, text), crc32.ChecksumIEEE(text), uint32(len(text))}
	k := p.kept[key]
	if k == nil {
		var err error
		if k, err = p.pack(text); err != nil {
			return err
		}
	}
	p.used[key] = k
	return p.add(k)
}

// pack compresses a text.
func (p *packer) pack(text []byte) (*packed, error) {
	if err := p.deflate(text); err != nil {
		return nil, err
	}
	return &packed{bytes.Clone(p.deflated.Bytes()), crc32.ChecksumIEEE(text), shiftOf(len(text)), uint32(len(text))}, nil
}

func (p *packer) deflate(text []byte) error {
	p.deflated.Reset()
	p.deflater.Reset(&p.deflated)
	if _, err := p.deflater.Write(text); err != nil {
		return err
	}
	return p.deflater.Flush()
}

// end ends an answer.
func (p *packer) end() error {
	p.kept, p.used = p.used, p.kept
	clear(p.used)
	end := []byte{0x03, 0x00} // the last block, with nothing in it
	end = binary.LittleEndian.AppendUint32(end, p.sum)
	end = binary.LittleEndian.AppendUint32(end, p.length)
	_, err := p.out.Write(end)
	return err
}

// CRC-32 is the remainder of a text, taken as a polynomial over two elements, by another polynomial. What stands n bytes
// further in front counts for x^8n as much. Remainders have their highest power in the lowest bit.

const one = 1 << 31 // the polynomial 1

// multiply returns the product of two remainders.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 { // by the powers in a, from x^0 up
		if a&one != 0 {
			product ^= b
		}
		low := b & 1
		b = b>>1 ^ -low&crc32.IEEE
	}
	return product
}

// shiftOf returns the remainder of x^8n.
func shiftOf(n int) uint32 {
	power, shift := uint32(one>>8), uint32(one) // power is x^8 to the place of the bit of n that is looked at
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			shift = multiply(shift, power)
		}
		power = multiply(power, power)
	}
	return shift
}
