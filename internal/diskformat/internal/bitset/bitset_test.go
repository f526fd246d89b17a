package bitset

import (
	"testing"

	"pgregory.net/rapid"
)

// The set does what a plain slice of booleans would.
func TestSetAgainstSlice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint32Range(0, 300).Draw(t, "n")
		model := make([]bool, n)
		s := New(n)
		for range rapid.IntRange(0, 10).Draw(t, "steps") {
			if n == 0 {
				break
			}
			from := rapid.Uint32Range(0, n-1).Draw(t, "from")
			to := rapid.Uint32Range(from, n).Draw(t, "to")
			if rapid.Bool().Draw(t, "one") {
				s.Add(from)
				model[from] = true
				continue
			}
			s.AddRange(from, to)
			for i := from; i < to; i++ {
				model[i] = true
			}
		}
		s.Index()
		again, _, ok := FromBytes(n, s.Bytes(100))
		if !ok {
			t.Fatal("its own bytes are refused")
		}
		for _, s := range []*Set{s, again} {
			var rank uint32
			for i := range n {
				if s.Has(i) != model[i] || s.Rank(i) != rank {
					t.Fatalf("%d: %v, rank %d; right are %v, %d", i, s.Has(i), s.Rank(i), model[i], rank)
				}
				next, not := i, i
				for next < n && !model[next] {
					next++
				}
				for not < n && model[not] {
					not++
				}
				if s.Next(i) != next || s.NextNot(i) != not {
					t.Fatalf("after %d: %d, %d; right are %d, %d", i, s.Next(i), s.NextNot(i), next, not)
				}
				if model[i] {
					rank++
				}
			}
			if s.Count() != rank || s.Len() != n || s.Has(n) || s.Next(n) != n || s.NextNot(n+5) != n {
				t.Fatalf("count %d of %d, right is %d", s.Count(), s.Len(), rank)
			}
		}
	})
}

func TestFromBytesBeyond(t *testing.T) {
	t.Parallel()
	for bit := range uint64(64) {
		b := make([]byte, 8)
		b[bit/8] = 1 << (bit % 8)
		if _, beyond, ok := FromBytes(13, b); ok != (bit < 13) || !ok && beyond != bit {
			t.Errorf("bit %d: %v, %d", bit, ok, beyond)
		}
	}
	if s, _, ok := FromBytes(100, []byte{1}); !ok || s.Count() != 1 || !s.Has(0) {
		t.Error("missing bytes are no zeros")
	}
}
