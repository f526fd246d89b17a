package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/quickims/quickims/test/measure"
)

// toZVHD2 converts the disk, beside qemu-img's compressed qcow2, and beside zstd
// over the data alone.
func (b *bench) toZVHD2() error {
	disk, data := b.path("disk.raw"), b.path("data.bin")
	qemu := []string{"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", "-m", "16", "-W", disk}
	tools := []tool{
		{name: "quickims", args: []string{b.quickims, "-q", "convert", disk, b.path("disk.zvhd2")}, out: b.path("disk.zvhd2")},
		{name: "qemu-img", args: append(slices.Clone(qemu), b.path("disk.qcow2")), out: b.path("disk.qcow2")},
		{name: "qemu-img + sync", args: append(slices.Clone(qemu), b.path("synced.qcow2")), out: b.path("synced.qcow2"), sync: true},
	}
	for level := 1; level <= 3; level++ {
		out := b.path(fmt.Sprintf("data.%d.zst", level))
		tools = append(tools, tool{name: fmt.Sprintf("zstd -%d", level),
			args: []string{"zstd", "-q", "-f", "-T0", fmt.Sprintf("-%d", level), data, "-o", out}, out: out})
	}
	got, err := b.compare("raw to compressed", b.data, tools...)
	if err != nil {
		return err
	}
	ours, qemuImg, synced := got["quickims"], got["qemu-img"], got["qemu-img + sync"]
	b.judge("qemu-img / quickims", true, 1.5, qemuImg.Seconds/ours.Seconds, qemuImg.CPU/ours.CPU)
	b.judge("qemu-img + sync / quickims", true, 1.5, synced.Seconds/ours.Seconds, synced.CPU/ours.CPU)
	z := sameRatio(ours.OutMiB, got["zstd -1"], got["zstd -2"], got["zstd -3"])
	b.judge("quickims / zstd -T0 of the same ratio", false, 1.15, ours.Seconds/z.Seconds, ours.CPU/z.CPU)
	for _, t := range tools[2:] {
		os.Remove(t.out)
	}
	return nil
}

// sameRatio is what zstd would take for an output of so many MiB, between the two
// levels whose outputs are nearest.
func sameRatio(size float64, levels ...figure) figure {
	slices.SortFunc(levels, func(a, b figure) int { return int(b.OutMiB - a.OutMiB) })
	if size >= levels[0].OutMiB {
		return levels[0]
	}
	for i := 1; i < len(levels); i++ {
		a, b := levels[i-1], levels[i]
		if size >= b.OutMiB {
			part := (a.OutMiB - size) / (a.OutMiB - b.OutMiB)
			return figure{Seconds: a.Seconds + part*(b.Seconds-a.Seconds), CPU: a.CPU + part*(b.CPU-a.CPU)}
		}
	}
	return levels[len(levels)-1]
}

// levels converts the disk at each level.
func (b *bench) levels() error {
	var tools []tool
	for level := 2; level <= 4; level++ {
		out := b.path("level.zvhd2")
		tools = append(tools, tool{name: fmt.Sprintf("quickims --level %d", level), out: out,
			args: []string{b.quickims, "-q", "convert", fmt.Sprintf("--level=%d", level), b.path("disk.raw"), out}})
	}
	runs := b.runs
	b.runs = 1 // the sizes are what matters
	defer func() { b.runs = runs }()
	_, err := b.compare("raw to ZVHD2 by level", b.data, tools...)
	os.Remove(b.path("level.zvhd2"))
	return err
}

// toRaw converts back, beside qemu-img from its own file.
func (b *bench) toRaw() error {
	out := func(name string) string { return b.path(name + ".back.raw") }
	qemu := func(name string, sync bool, flags ...string) tool {
		args := append([]string{"qemu-img", "convert"}, flags...)
		return tool{name: name, args: append(args, "-f", "qcow2", "-O", "raw", b.path("disk.qcow2"), out("qemu")), out: out("qemu"), sync: sync}
	}
	got, err := b.compare("compressed to raw", b.data,
		tool{name: "quickims", args: []string{b.quickims, "-q", "convert", b.path("disk.zvhd2"), out("quickims")}, out: out("quickims")},
		qemu("qemu-img", false),
		qemu("qemu-img -m 16 -W", false, "-m", "16", "-W"),
		qemu("qemu-img + sync", true))
	if err != nil {
		return err
	}
	ours, qemuImg, synced := got["quickims"], got["qemu-img"], got["qemu-img + sync"]
	b.judge("quickims / qemu-img", false, 1, ours.Seconds/qemuImg.Seconds, ours.CPU/qemuImg.CPU)
	b.judge("quickims / qemu-img + sync", false, 1, ours.Seconds/synced.Seconds, ours.CPU/synced.CPU)
	return b.same(out("quickims"))
}

// same checks that the disk came back as it was.
func (b *bench) same(path string) error {
	_, err := b.compare("compare", b.data, tool{name: "quickims verify --against",
		args: []string{b.quickims, "-q", "verify", "-f", "raw", "--against", b.path("disk.raw"), path}})
	os.Remove(path)
	os.Remove(b.path("qemu.back.raw"))
	return err
}

// mf makes the bitmap of a file without holes, beside reading it.
func (b *bench) mf() error {
	data := b.path("data.bin")
	got, err := b.compare("bitmap of a full file", b.data,
		tool{name: "quickims", args: []string{b.quickims, "-q", "mf", "-f", "raw", data, b.path("data.mf")}, out: b.path("data.mf")},
		tool{name: "cat", args: []string{"cat", data}})
	if err != nil {
		return err
	}
	ours, cat := got["quickims"], got["cat"]
	b.judge("quickims mf / cat", false, 1.2, ours.Seconds/cat.Seconds, ours.CPU/cat.CPU)
	return nil
}

// mfSparse makes the bitmap of 1 TiB with 64 MiB of data.
func (b *bench) mfSparse() error {
	got, err := b.compare("bitmap of a sparse TiB", 64*measure.MiB,
		tool{name: "quickims", args: []string{b.quickims, "-q", "mf", b.path("tib.raw"), b.path("tib.mf")}, out: b.path("tib.mf")})
	if err != nil {
		return err
	}
	b.judge("seconds of quickims mf, 1 TiB sparse", false, 1, got["quickims"].Seconds, got["quickims"].CPU)
	return nil
}

// memory judges the most memory that any of our commands took.
func (b *bench) memory() {
	most := 0.0
	for _, f := range b.rep.Figures {
		if strings.HasPrefix(f.Tool, "quickims") {
			most = max(most, f.PeakMiB)
		}
	}
	b.judge("peak MiB of quickims", false, 256, most, most)
}
