package extents_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
)

func TestMerge(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	walk := func(err error) func(extents.Add) error {
		return func(add extents.Add) error {
			_ = add(0, true) && add(5, false) && add(3, false) && add(2, true) && add(0, false) && add(1, true) && add(4, false)
			return err
		}
	}
	all := []diskformat.Extent{{Length: 8}, {Offset: 8, Length: 3, Data: true}, {Offset: 11, Length: 4}}
	for _, fault := range []error{nil, broken} {
		for most := 1; most <= len(all)+1; most++ {
			var got []diskformat.Extent
			var last error
			for e, err := range extents.Merge(walk(fault)) {
				if err != nil {
					last = err
					if e != (diskformat.Extent{}) {
						t.Errorf("with the error comes %+v", e)
					}
				} else {
					got = append(got, e)
				}
				if len(got) == most {
					break
				}
			}
			if !slices.Equal(got, all[:min(most, len(all))]) {
				t.Errorf("the first %d: %+v", most, got)
			}
			if want := fault != nil && most > len(all); want != (last != nil) {
				t.Errorf("the first %d, error %v: %v came", most, fault, last)
			}
		}
	}
	for e, err := range extents.Merge(func(extents.Add) error { return nil }) {
		t.Errorf("of nothing: %+v, %v", e, err)
	}
}

// A walk that does not listen yields nothing more.
func TestMergeStopped(t *testing.T) {
	t.Parallel()
	n := 0
	for range extents.Merge(func(add extents.Add) error {
		for i := range 10 {
			add(1, i%2 == 0)
		}
		return errors.New("too late")
	}) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d extents", n)
	}
}

func TestKnown(t *testing.T) {
	t.Parallel()
	all := []diskformat.Extent{{Length: 1}, {Offset: 1, Length: 2, Data: true}}
	var got []diskformat.Extent
	for e, err := range extents.Known(slices.Values(all)) {
		if err != nil {
			t.Error(err)
		}
		got = append(got, e)
	}
	if !slices.Equal(got, all) {
		t.Errorf("%+v", got)
	}
	for range extents.Known(slices.Values(all)) {
		break
	}
}
