//go:build amd64

package boot

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// TestDiskChecked: what the commands say of the disk is what the guest finds when it
// starts.
func TestDiskChecked(t *testing.T) {
	t.Parallel()
	d := theDisk(t)
	for _, file := range []string{d.raw, d.zvhd2} {
		var info struct {
			Table struct {
				Type string
				EFI  bool `json:"efi_system"`
				BIOS bool `json:"bios_boot"`
			} `json:"partition_table"`
			Quick struct{ Ready bool } `json:"quick_import"`
		}
		decode(t, run(t, harness.Binary(t), "info", "--json", file), &info)
		if info.Table.Type != "gpt" || !info.Table.EFI || !info.Table.BIOS || !info.Quick.Ready {
			t.Errorf("info %s says %+v", filepath.Base(file), info)
		}
		run(t, harness.Binary(t), "verify", "--against", d.raw, file)

		var report struct {
			Architecture string
			Partitions   []struct{ Content, UUID, Mount string }
			Findings     []struct{ ID, Severity, Found string }
		}
		// The disk has no network, which check reports as an error; here it is about
		// whether it starts.
		out, err := exec.Command(harness.Binary(t), "check", "--json", "--all", file).Output()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		decode(t, out, &report)
		if n := len(report.Partitions); n != 3 || report.Architecture != "x86" {
			t.Fatalf("check %s: %d partitions, architecture %s", filepath.Base(file), n, report.Architecture)
		}
		if p := report.Partitions[2]; p.Content != "ext4" || p.UUID != d.RootUUID || p.Mount != "/" {
			t.Errorf("check %s: the root is %+v, want ext4 with UUID %s", filepath.Base(file), p, d.RootUUID)
		}
		words := map[string]string{ // of the findings about starting
			"boot-mode": "both BIOS and UEFI", "efi-boot-file": "EFI/BOOT/BOOTX64.EFI", "root-filesystem": "partition 3", "fstab": "by UUID",
			"boot-config": "/boot/grub/grub.cfg", "kernel": d.Kernel, "initramfs": d.Kernel, "virtio-pci": "initramfs", "virtio-blk": "initramfs",
		}
		for _, f := range report.Findings {
			if word, ok := words[f.ID]; ok {
				delete(words, f.ID)
				if f.Severity != "ok" || !strings.Contains(f.Found, word) {
					t.Errorf("check %s: %s is %s: %s", filepath.Base(file), f.ID, f.Severity, f.Found)
				}
			}
		}
		if len(words) > 0 {
			t.Errorf("check %s has no findings %v", filepath.Base(file), words)
		}
	}
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}
