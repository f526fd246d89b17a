package ims

import (
	"errors"
	"testing"
)

// TestKinds: an Error has its own kind, or else its code's; neither way is it the
// stand-in KindOfCode.
func TestKinds(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	for _, tt := range []struct {
		what string
		err  *Error
		want Kind
	}{
		{"a code of the table", Faultf(CodeImageUnknown, "x"), KindInvalid},
		{"a code that the table forbids", Faultf(CodeForbidden, "x"), KindForbidden},
		{"a kind of its own", NotFoundf(CodeImageUnknown, "x"), KindNotFound},
		{"a kind of its own, with a cause", Faultf(CodeConflict, "x").WithKind(KindConflict).Cause(cause), KindConflict},
		{"a kind given and taken back", NotFoundf(CodeImageUnknown, "x").WithKind(KindOfCode), KindInvalid},
		{"a code that the table lacks", Faultf("IMG.9999", "x"), KindInternal},
	} {
		if got := tt.err.Kind(); got != tt.want {
			t.Errorf("%s: kind %d, want %d", tt.what, got, tt.want)
		}
	}
	if e := Faultf(CodeConflict, "x").Cause(cause).WithKind(KindConflict); !errors.Is(e, cause) || e.Detail != "x" {
		t.Errorf("WithKind lost the cause or the detail: %v", e)
	}
}
