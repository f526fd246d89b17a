package catalog

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// errorKind is the kind of the first *ims.Error in err's chain.
func errorKind(err error) ims.Kind {
	if e, ok := errors.AsType[*ims.Error](err); ok {
		return e.Kind()
	}
	return ims.KindOfCode
}

func TestTags(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		ctx := t.Context()
		img, _ := c.active(mine) // has a=1 and b
		want := func(when string, tags ...ims.Tag) {
			t.Helper()
			if got := c.image(mine, img.ID).Tags; !reflect.DeepEqual(got, tags) {
				t.Errorf("%s: %v, want %v", when, got, tags)
			}
		}
		c.clock.advance(time.Second)
		set := []ims.Tag{{Key: "b", Value: "2"}, {Key: "B", Value: "other"}, {Key: "ä ö", Value: "k=v"}}
		for range 2 { // repeating it changes nothing
			must(t, c.SetTags(ctx, mine, img.ID, set))
			want("set", ims.Tag{Key: "B", Value: "other"}, ims.Tag{Key: "a", Value: "1"}, ims.Tag{Key: "b", Value: "2"}, ims.Tag{Key: "ä ö", Value: "k=v"})
		}
		if got := c.image(mine, img.ID).UpdatedAt; !got.Equal(c.now()) {
			t.Errorf("updated at %v, want %v", got, c.now())
		}
		remove := []ims.Tag{{Key: "b", Value: "no"}, {Key: "a", Value: "1"}, {Key: "B"}, {Key: "absent"}, {Key: "\x00"}, {Key: "a", Value: "\xff"}}
		for range 2 {
			must(t, c.DeleteTags(ctx, mine, img.ID, remove))
			want("removed", ims.Tag{Key: "b", Value: "2"}, ims.Tag{Key: "ä ö", Value: "k=v"})
		}
		must(t, c.DeleteTag(ctx, mine, img.ID, "b"))
		for _, key := range []string{"b", "\x00"} {
			err := c.DeleteTag(ctx, mine, img.ID, key)
			wantCode(t, err, ims.CodeTag)
			if kind := errorKind(err); kind != ims.KindNotFound {
				t.Errorf("an absent key is of kind %d, want KindNotFound", kind)
			}
		}
		wantCode(t, c.SetTags(ctx, mine, img.ID, []ims.Tag{{Key: "fine"}, {Key: "not\x00fine"}}), ims.CodeTag)
		want("at the end", ims.Tag{Key: "ä ö", Value: "k=v"})
	})
}

// TestTagQuota: ten are allowed, overwriting takes no room, and a refused request
// changes nothing.
func TestTagQuota(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		var tags []ims.Tag
		for i := range ims.MaxTags - 2 {
			tags = append(tags, ims.Tag{Key: fmt.Sprintf("k%d", i), Value: "old"})
		}
		must(t, c.SetTags(t.Context(), mine, img.ID, tags))
		err := c.SetTags(t.Context(), mine, img.ID, []ims.Tag{{Key: "k0", Value: "new"}, {Key: "one too many"}})
		wantCode(t, err, ims.CodeTagQuota)
		got := c.image(mine, img.ID).Tags
		if len(got) != ims.MaxTags || got[2] != (ims.Tag{Key: "k0", Value: "old"}) {
			t.Errorf("a refused request left %v", got)
		}
		must(t, c.SetTags(t.Context(), mine, img.ID, []ims.Tag{{Key: "k0", Value: "new"}}))
	})
}

func TestProjectTags(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		for i := range 3 {
			img, _ := c.accept(mine)
			must(t, c.SetTags(t.Context(), mine, img.ID, []ims.Tag{{Key: "a", Value: fmt.Sprint(i % 2)}, {Key: "A", Value: "Z"}}))
		}
		theirs, _ := c.accept(other)
		must(t, c.SetTags(t.Context(), other, theirs.ID, []ims.Tag{{Key: "secret", Value: "theirs"}}))
		got, err := c.Tags(t.Context(), mine, ims.ImageFilter{OwnAlone: true}, 0, 0)
		must(t, err)
		want := []ims.Tag{{Key: "A", Value: "Z"}, {Key: "a", Value: "0"}, {Key: "a", Value: "1"}, {Key: "b"}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if page, err := c.Tags(t.Context(), mine, ims.ImageFilter{}, 1, 2); err != nil || !reflect.DeepEqual(page, want[1:3]) {
			t.Errorf("the second and third: %v, %v", page, err)
		}
		some, err := c.Tags(t.Context(), mine, ims.ImageFilter{Tags: []ims.TagCondition{{Key: "a", Values: []string{"1"}}}}, 0, 0)
		if must(t, err); !reflect.DeepEqual(some, []ims.Tag{want[0], want[2], want[3]}) {
			t.Errorf("of the image with a=1: %v", some)
		}
	})
}
