// Package create writes a disk as a file of any format that is written here. It
// is the counterpart of package open.
package create

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/blockwise"
	"github.com/quickims/quickims/internal/diskformat/qcow2"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/diskformat/vhd"
	"github.com/quickims/quickims/internal/diskformat/vhdx"
	"github.com/quickims/quickims/internal/diskformat/vmdk"
	"github.com/quickims/quickims/internal/diskformat/zvhd"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// ErrNeedsFile is returned when a format, or one of its options, cannot be written
// to a stream.
var ErrNeedsFile = blockwise.ErrNeedsFile

// Summary is what was written: the disk's blocks, those that the file stores, and
// the file's size in bytes. RAW has no blocks; where RAW is made of ZVHD2 they are those of the source.
type Summary = blockwise.Summary

// Options say how a disk is written.
type Options struct {
	// Level is how hard to compress: 1 (fastest) to 4 (smallest); 0 is 1. It
	// concerns what is compressed alone.
	Level int
	// Set are the format's own options; see [Format.Options].
	Set map[string]string
	// Name is the file's own name, which a VMDK repeats inside.
	Name string
	// The concurrency is bounded by memory, too: see memory.
	sparse.CopyOptions
}

// Format is a format that can be written.
type Format struct {
	Name diskformat.Format
	// Options has for each option its values, the default first.
	Options map[string][]string
	// compressed tells whether the file's blocks are compressed, so that Level
	// means something.
	compressed func(o Options) bool
	write      func(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, o Options) (Summary, error)
}

// Frame is the option of ZVHD2 that says what a frame holds: a unit of 64 KiB, which can
// be read alone, or a whole block, as in the published form.
const (
	Frame      = "frame"
	frameBlock = "block"
)

// Formats are those that can be written, in the order in which help shows them.
var Formats = []Format{
	{
		Name:       diskformat.ZVHD2,
		Options:    map[string][]string{Frame: {"unit", frameBlock}},
		compressed: always,
		write:      writeZVHD2,
	},
	{Name: diskformat.Raw, compressed: never, write: writeRaw},
	{
		Name:    diskformat.QCOW2,
		Options: map[string][]string{"compression": {"none", "zstd", "zlib"}},
		compressed: func(o Options) bool {
			return o.Set["compression"] == string(qcow2.Zstd) // zlib has one level there
		},
		write: writeQCOW2,
	},
	{
		Name:       diskformat.VMDK,
		Options:    map[string][]string{"subformat": {string(vmdk.StreamOptimized), string(vmdk.MonolithicSparse)}},
		compressed: func(o Options) bool { return o.Set["subformat"] != string(vmdk.MonolithicSparse) },
		write:      writeVMDK,
	},
	{
		Name:       diskformat.VHD,
		Options:    map[string][]string{"subformat": {"dynamic", "fixed"}, "size": {"exact", "mib"}},
		compressed: never,
		write:      writeVHD,
	},
	{Name: diskformat.VHDX, compressed: never, write: writeVHDX},
	{Name: diskformat.ZVHD, compressed: always, write: writeZVHD},
}

func always(Options) bool { return true }
func never(Options) bool  { return false }

// Find finds the format that a user means, also by QEMU's name for it. The error
// lists the formats.
func Find(name string) (Format, error) {
	name = strings.ToLower(name)
	if name == "vpc" {
		name = string(diskformat.VHD)
	}
	names := make([]string, len(Formats))
	for i, f := range Formats {
		if string(f.Name) == name {
			return f, nil
		}
		names[i] = string(f.Name)
	}
	return Format{}, fmt.Errorf("format is %q; it must be one of %s", name, strings.Join(names, ", "))
}

// Check checks the options. An error names the option and its values.
func (f Format) Check(o Options) error {
	for _, key := range slices.Sorted(maps.Keys(o.Set)) {
		values, ok := f.Options[key]
		if !ok {
			if len(f.Options) == 0 {
				return fmt.Errorf("%s has no option %q; it has none", f.Name, key)
			}
			return fmt.Errorf("%s has no option %q; it has %s", f.Name, key, strings.Join(slices.Sorted(maps.Keys(f.Options)), ", "))
		}
		if !slices.Contains(values, o.Set[key]) {
			return fmt.Errorf("%s of %s is %q; it must be one of %s", key, f.Name, o.Set[key], strings.Join(values, ", "))
		}
	}
	switch {
	case o.Level < 0 || o.Level > len(memory):
		return fmt.Errorf("level is %d; it must be 1 (fastest) to %d (smallest)", o.Level, len(memory))
	case o.Level > 0 && !f.compressed(o):
		return fmt.Errorf("%s is not compressed so, or has one level alone; leave the level out", f.Name)
	}
	return nil
}

// Write writes the disk src of size bytes, a multiple of 512, to dst. A dst that is
// an empty [*os.File] is written at any place and gets holes where that helps;
// else it is written in sequence, and the error is [ErrNeedsFile] if the format
// cannot. What was written is a file only if the error is nil.
func (f Format) Write(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, o Options) (Summary, error) {
	if err := f.Check(o); err != nil {
		return Summary{}, err
	}
	o.Concurrency = o.Workers()
	return f.write(ctx, dst, src, size, o)
}

// Levels of zstd and zlib for our four.
var (
	zstdLevels = [...]int{1, 3, 7, 11} // as klauspost/compress tells its four encoders apart
	zlibLevels = [...]int{1, 5, 7, 9}
)

// memory is about what a block of 2 MiB on its way takes at each level, in MiB,
// encoder and buffers together.
var memory = [...]int{12, 16, 26, 60}

// memoryBudget is what the blocks on their way may take together, in MiB.
const memoryBudget = 200

// Workers is how many pieces are compressed at once: Concurrency or one for each
// core, unless their memory forbids.
func (o Options) Workers() int {
	n := o.Concurrency
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return max(1, min(n, memoryBudget/memory[max(0, o.Level-1)]))
}

// zstdLevel is Level in zstd's terms.
func (o Options) zstdLevel() int { return zstdLevels[max(0, o.Level-1)] }
func (o Options) zlibLevel() int { return zlibLevels[max(0, o.Level-1)] }

// ZVHD2 is the options of a ZVHD2 file.
func (o Options) ZVHD2(progress func(done, total int64)) zvhd2.Options {
	return zvhd2.Options{
		WholeBlocks: o.Set[Frame] == frameBlock,
		Level:       o.zstdLevel(), Concurrency: o.Workers(), Progress: progress,
	}
}

func writeZVHD2(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, o Options) (Summary, error) {
	made, err := zvhd2.Convert(ctx, dst, src, size, zvhd2.ConvertOptions{
		Options: o.ZVHD2(o.Progress), Data: o.Data})
	return Summary{Blocks: int64(made.Blocks), DataBlocks: int64(made.DataBlocks), FileSize: made.FileSize}, err
}

func writeZVHD(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, o Options) (Summary, error) {
	made, err := zvhd.Convert(ctx, dst, src, size, zvhd.Options{
		Level: o.zlibLevel(), Concurrency: o.Concurrency, Progress: o.Progress, Data: o.Data})
	return Summary{Blocks: int64(made.Blocks), DataBlocks: int64(made.DataBlocks), FileSize: made.FileSize}, err
}

func writeRaw(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, o Options) (Summary, error) {
	at, ok := dst.(io.WriterAt)
	made := Summary{FileSize: size}
	disk, packed := src.(*zvhd2.File)
	if packed {
		made.Blocks, made.DataBlocks = int64(disk.Blocks()), int64(disk.DataBlocks())
	}
	switch {
	case !ok:
		return made, sparse.Stream(ctx, dst, src, size, o.CopyOptions)
	case packed && size == disk.OrigSize():
		return made, disk.Extract(ctx, at, zvhd2.ExtractOptions{Options: zvhd2.Options{Concurrency: o.Concurrency, Progress: o.Progress}})
	}
	return made, sparse.Copy(ctx, at, src, size, o.CopyOptions)
}

func writeQCOW2(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, o Options) (Summary, error) {
	return qcow2.Convert(ctx, dst, src, size, qcow2.ConvertOptions{
		Compression: qcow2.Compression(o.Set["compression"]), Level: o.zstdLevel(), CopyOptions: o.CopyOptions})
}

func writeVMDK(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, o Options) (Summary, error) {
	return vmdk.Convert(ctx, dst, src, size, vmdk.ConvertOptions{
		Subformat: vmdk.Subformat(o.Set["subformat"]), Level: o.zlibLevel(), Name: o.Name, CopyOptions: o.CopyOptions})
}

func writeVHD(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, o Options) (Summary, error) {
	opts := vhd.ConvertOptions{Fixed: o.Set["subformat"] == "fixed", CopyOptions: o.CopyOptions}
	if o.Set["size"] == "mib" {
		opts.Multiple = 1 << 20
	}
	made, err := vhd.Convert(ctx, dst, src, size, opts)
	return made.Summary, err
}

func writeVHDX(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, o Options) (Summary, error) {
	return vhdx.Convert(ctx, dst, src, size, o.CopyOptions)
}
