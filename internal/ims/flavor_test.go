package ims

import "testing"

func TestParseFlavor(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Flavor{
		"s3.large.4": {EnvECS, ArchX86, 8 << 10}, "s2.medium.1": {EnvECS, ArchX86, 1 << 10}, "c6.xlarge.2": {EnvECS, ArchX86, 8 << 10},
		"e3.26xlarge.28": {EnvECS, ArchX86, 26 * 4 * 28 << 10}, "kc1.2xlarge.4": {EnvECS, ArchARM, 32 << 10},
		"physical.o2.medium": {EnvBMS, ArchX86, 0}, "physical.ks1.2xlarge": {EnvBMS, ArchARM, 0},
	} {
		if got, err := ParseFlavor(name); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
	for _, name := range []string{"", "x", "s3.large", "s3.huge.4", "S3.large.4", "s3.large.4.5", "s3.9999xlarge.4", "s3.0xlarge.4", "s3.large.0", "physical.", "physical.a b", "s3.large.4\n"} {
		if _, err := ParseFlavor(name); CodeOf(err) != CodeFlavor {
			t.Errorf("%q: %v, want %s", name, err, CodeFlavor)
		}
	}
}
