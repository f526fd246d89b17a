package checksum_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/quickims/quickims/internal/s3face/checksum"
)

// TestCheckValues compares each algorithm with the check value that its
// definition publishes: the sum of "123456789".
func TestCheckValues(t *testing.T) {
	t.Parallel()
	for a, want := range map[checksum.Algorithm]string{
		checksum.CRC32:     "y/Q5Jg==",     // cbf43926
		checksum.CRC32C:    "4waSgw==",     // e3069283
		checksum.CRC64NVME: "rosUhgp5mIg=", // ae8b14860a799888
		checksum.SHA1:      "98O8HYCOBHMq32eZZczDTKeuNEE=",
		checksum.SHA256:    "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
	} {
		h := a.New()
		h.Write([]byte("123456789"))
		if got := checksum.Encode(h.Sum(nil)); got != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
		if sum, ok := a.Decode(want); !ok || !bytes.Equal(sum, h.Sum(nil)) {
			t.Errorf("%s: %s does not decode", a, want)
		}
	}
}

// TestOfParts: the sum of a whole, computed from its parts' sums, is the sum of
// its bytes.
func TestOfParts(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for _, a := range []checksum.Algorithm{checksum.CRC32, checksum.CRC32C, checksum.CRC64NVME} {
		for range 50 {
			whole := a.New()
			var parts []checksum.Part
			for range random.IntN(5) + 1 {
				b := make([]byte, random.IntN(3000))
				for i := range b {
					b[i] = byte(random.Uint32())
				}
				h := a.New()
				h.Write(b)
				whole.Write(b)
				parts = append(parts, checksum.Part{Sum: h.Sum(nil), Length: int64(len(b))})
			}
			got, err := a.OfParts(checksum.FullObject, parts)
			if want := checksum.Encode(whole.Sum(nil)); err != nil || got != want {
				t.Fatalf("%s of %d parts: %s, %v; want %s", a, len(parts), got, err, want)
			}
		}
	}
	if _, err := checksum.SHA256.OfParts(checksum.FullObject, nil); err == nil {
		t.Error("SHA256 of a whole cannot follow from its parts")
	}
	got, err := checksum.SHA1.OfParts(checksum.Composite, []checksum.Part{{Sum: make([]byte, 20), Length: 5}})
	if want := "aHaNhAQlJRf0q2rxcnA9SNw4uyE=-1"; err != nil || len(got) != len(want) || got[len(got)-2:] != "-1" {
		t.Errorf("composite: %s, %v", got, err)
	}
}
