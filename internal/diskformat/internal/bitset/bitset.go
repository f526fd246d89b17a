// Package bitset is a fixed set of block numbers that finds the rank of a
// member in constant time.
package bitset

import (
	"math/bits"
	"sort"
)

// Set holds numbers from 0 to Len-1. Add members, then Rank may be asked after
// Index. Reading is safe from many goroutines.
type Set struct {
	n     uint32
	words []uint64
	ranks []uint32 // members before each word
	count uint32
}

// New makes an empty set for n numbers; it takes n/8 bytes, and half as much
// again for Index.
func New(n uint32) *Set { return &Set{n: n, words: make([]uint64, (uint64(n)+63)/64)} }

// FromBytes takes n bits, least significant first, byte after byte, and
// indexes them. It returns false and the number of the first bit from n on
// that is set, if one is. b may be longer or shorter than n bits.
func FromBytes(n uint32, b []byte) (s *Set, beyond uint64, ok bool) {
	s = New(n)
	for i, c := range b {
		if c == 0 {
			continue
		}
		if last := uint64(i)*8 + uint64(7-bits.LeadingZeros8(c)); last >= uint64(n) {
			return nil, last, false
		}
		s.words[i/8] |= uint64(c) << (i % 8 * 8)
	}
	s.Index()
	return s, 0, true
}

// Bytes is the inverse of FromBytes, in n bytes, which suffice.
func (s *Set) Bytes(n int) []byte {
	b := make([]byte, n)
	for i := range min(len(b), 8*len(s.words)) {
		b[i] = byte(s.words[i/8] >> (i % 8 * 8))
	}
	return b
}

// Len is how many numbers there can be.
func (s *Set) Len() uint32 { return s.n }

// Add puts i, which is less than Len, into the set.
func (s *Set) Add(i uint32) { s.words[i/64] |= 1 << (i % 64) }

// AddRange puts from to to-1 into the set.
func (s *Set) AddRange(from, to uint32) {
	for ; from < to && from%64 != 0; from++ {
		s.Add(from)
	}
	for ; to-from >= 64 && from < to; from += 64 {
		s.words[from/64] = ^uint64(0)
	}
	for ; from < to; from++ {
		s.Add(from)
	}
}

// Index prepares Rank and Count for the members there are.
func (s *Set) Index() {
	s.ranks, s.count = make([]uint32, len(s.words)), 0
	for i, w := range s.words {
		s.ranks[i] = s.count
		s.count += uint32(bits.OnesCount64(w))
	}
}

// Count is the number of members.
func (s *Set) Count() uint32 { return s.count }

// Has tells whether i is a member; a number from Len on is not.
func (s *Set) Has(i uint32) bool { return i < s.n && s.words[i/64]&(1<<(i%64)) != 0 }

// Rank is the number of members less than i, which is less than Len.
func (s *Set) Rank(i uint32) uint32 {
	return s.ranks[i/64] + uint32(bits.OnesCount64(s.words[i/64]&(1<<(i%64)-1)))
}

// Select is the member with k members before it; k is less than Count.
func (s *Set) Select(k uint32) uint32 {
	w := sort.Search(len(s.ranks), func(i int) bool { return s.ranks[i] > k }) - 1
	word := s.words[w]
	for range k - s.ranks[w] {
		word &= word - 1
	}
	return uint32(64*w + bits.TrailingZeros64(word))
}

// Next is the first member from i on, or Len.
func (s *Set) Next(i uint32) uint32 { return s.scan(i, 0) }

// NextNot is the first number from i on that is no member, or Len.
func (s *Set) NextNot(i uint32) uint32 { return s.scan(i, ^uint64(0)) }

func (s *Set) scan(i uint32, flip uint64) uint32 {
	if i >= s.n {
		return s.n
	}
	at := i / 64
	w := (s.words[at] ^ flip) >> (i % 64) << (i % 64)
	for w == 0 {
		if at++; int(at) == len(s.words) {
			return s.n
		}
		w = s.words[at] ^ flip
	}
	return min(s.n, at*64+uint32(bits.TrailingZeros64(w)))
}
