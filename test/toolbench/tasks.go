package main

import (
	"cmp"
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
		{name: "qemu-img + sync", args: append(slices.Clone(qemu), b.path("synced.qcow2")), out: b.path("synced.qcow2"), sync: true, once: true},
	}
	ours := []string{"quickims"}
	if b.libzstd != "" {
		out := b.path("libzstd.zvhd2")
		tools = append(tools, tool{name: "quickims, libzstd", args: []string{b.libzstd, "-q", "convert", disk, out}, out: out, once: true})
		ours = append(ours, "quickims, libzstd")
	}
	out := b.path("data.zst")
	for _, level := range []string{"--fast=1", "-1", "-2"} {
		for _, sync := range []string{"", " + sync"} {
			tools = append(tools, tool{name: "zstd -T0 " + level + sync, out: out, once: true, sync: sync != "",
				args: []string{"zstd", "-q", "-f", "-T0", level, data, "-o", out}})
		}
	}
	got, err := b.compare("raw to compressed", b.data, tools...)
	if err != nil {
		return err
	}
	for _, name := range ours {
		for _, sync := range []string{"", " + sync"} {
			wall, cpu := ratio(got["qemu-img"+sync].runs, got[name].runs)
			b.judge("qemu-img"+sync+" / "+name, true, 1.5, wall, cpu)
			same := sameRatio(got[name].OutMiB, got["zstd -T0 --fast=1"+sync], got["zstd -T0 -1"+sync], got["zstd -T0 -2"+sync])
			wall, cpu = ratio(got[name].runs, same)
			b.judge(name+" / zstd -T0 of the same ratio"+sync, false, 1.15, wall, cpu)
		}
	}
	return nil
}

// sameRatio is what zstd would take for an output of so many MiB, run by run: between
// the two levels whose outputs are nearest.
func sameRatio(size float64, levels ...measured) []sample {
	slices.SortFunc(levels, func(a, b measured) int { return cmp.Compare(b.OutMiB, a.OutMiB) })
	if size >= levels[0].OutMiB {
		return levels[0].runs
	}
	for i := 1; i < len(levels); i++ {
		a, b := levels[i-1], levels[i]
		if size < b.OutMiB {
			continue
		}
		part := (a.OutMiB - size) / (a.OutMiB - b.OutMiB)
		runs := make([]sample, len(a.runs))
		for k := range runs {
			runs[k].wall = a.runs[k].wall + part*(b.runs[k].wall-a.runs[k].wall)
			runs[k].cpu = a.runs[k].cpu + part*(b.runs[k].cpu-a.runs[k].cpu)
		}
		return runs
	}
	return levels[len(levels)-1].runs
}

// levels converts the disk at each level.
func (b *bench) levels() error {
	var tools []tool
	for level := 2; level <= 4; level++ {
		out := b.path("level.zvhd2")
		tools = append(tools, tool{name: fmt.Sprintf("quickims --level %d", level), out: out, once: true,
			args: []string{b.quickims, "-q", "convert", fmt.Sprintf("--level=%d", level), b.path("disk.raw"), out}})
	}
	runs := b.runs
	b.runs = 1 // the sizes are what matters
	defer func() { b.runs = runs }()
	_, err := b.compare("raw to ZVHD2 by level", b.data, tools...)
	return err
}

// toRaw converts back, beside qemu-img from its own file.
func (b *bench) toRaw() error {
	out := func(name string) string { return b.path(name + ".back.raw") }
	qemu := func(name string, sync bool, flags ...string) tool {
		args := append([]string{"qemu-img", "convert"}, flags...)
		return tool{name: name, args: append(args, "-f", "qcow2", "-O", "raw", b.path("disk.qcow2"), out("qemu")), out: out("qemu"), sync: sync, once: true}
	}
	got, err := b.compare("compressed to raw", b.data,
		tool{name: "quickims", args: []string{b.quickims, "-q", "convert", b.path("disk.zvhd2"), out("quickims")}, out: out("quickims")},
		qemu("qemu-img", false),
		qemu("qemu-img -m 16 -W", false, "-m", "16", "-W"),
		qemu("qemu-img + sync", true))
	if err != nil {
		return err
	}
	for _, peer := range []string{"qemu-img", "qemu-img + sync", "qemu-img -m 16 -W"} {
		wall, cpu := ratio(got["quickims"].runs, got[peer].runs)
		b.judge("ZVHD2 to RAW: quickims / "+peer, false, 1, wall, cpu)
	}
	return b.same(out("quickims"))
}

// same checks that the disk came back as it was.
func (b *bench) same(path string) error {
	_, err := b.compare("compare", b.data, tool{name: "quickims verify --against",
		args: []string{b.quickims, "-q", "verify", "-f", "raw", "--against", b.path("disk.raw"), path}})
	os.Remove(path)
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
	wall, cpu := ratio(got["quickims"].runs, got["cat"].runs)
	b.judge("quickims mf / cat", false, 1.2, wall, cpu)
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
