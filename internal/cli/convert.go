package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/diskformat/zvhd"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/inspect"
)

// ConvertCmd makes ZVHD2, RAW or ZVHD of a disk file.
type ConvertCmd struct {
	inputFlags
	In     string `arg:"" name:"in" help:"Disk file of any format that is read, a block device, or - for standard input, which is RAW."`
	Out    string `arg:"" name:"out" help:"File to write, or - for standard output."`
	Output string `short:"O" name:"output-format" placeholder:"FORMAT" help:"Format of OUT: zvhd2, raw or zvhd. Default: by the ending of OUT's name, else zvhd2, or raw if IN is ZVHD2."`
	Level  *int   `placeholder:"1-4" help:"How hard to compress: 1 is fastest, 4 smallest. Default: 1."`
	Size   string `placeholder:"SIZE" help:"Size of the disk on standard input, in bytes or with K, M, G or T. Wanted if OUT is standard output."`
	Force  bool   `help:"Replace OUT if it is there."`
}

// Help shows the command's use.
func (ConvertCmd) Help() string {
	return `IN may be raw, qcow2, vmdk, vhd, vhdx, vdi, zvhd or zvhd2; which it is says its content, not its name. Holes are neither read nor stored, RAW is written sparse, and all cores are used. OUT appears when it is whole and on the disk, not before.

Examples:

    quickims convert disk.raw disk.zvhd2
    quickims convert disk.qcow2 disk.zvhd2
    quickims convert -O raw /dev/vg0/disk disk.raw
    zcat disk.raw.gz | quickims convert - disk.zvhd2
    quickims convert disk.vmdk - | ssh host "cat >disk.zvhd2"
`
}

// std stands for standard input or output.
const std = "-"

// endings are the names' endings that settle OUT's format.
var endings = map[string]diskformat.Format{
	".zvhd2": diskformat.ZVHD2, ".zvhd": diskformat.ZVHD,
	".raw": diskformat.Raw, ".img": diskformat.Raw, ".bin": diskformat.Raw, ".dd": diskformat.Raw,
}

// otherEndings are those of formats that users may hope for.
var otherEndings = []string{".qcow2", ".qcow", ".vmdk", ".vhd", ".vhdx", ".vdi", ".qed", ".iso", ".ova"}

// target is OUT's format as far as the call tells: "" leaves it to IN.
func (c *ConvertCmd) target() (diskformat.Format, error) {
	ending := strings.ToLower(filepath.Ext(c.Out))
	switch f := diskformat.Format(strings.ToLower(c.Output)); {
	case f == "" && c.Out != std:
		for _, other := range otherEndings {
			if ending == other {
				return "", usagef("%s: convert writes ZVHD2, RAW and ZVHD, not %s (-O zvhd2 writes that under this name)", c.Out, ending[1:])
			}
		}
		return endings[ending], nil
	case f == "", f == diskformat.Raw, f == diskformat.ZVHD2, f == diskformat.ZVHD:
		return f, nil
	}
	return "", usagef("-O %s: the formats are zvhd2, raw and zvhd", c.Output)
}

// Levels of zstd and zlib for our four.
var (
	zstdLevels = [...]int{1, 3, 7, 11} // as klauspost/compress tells its four encoders apart
	zlibLevels = [...]int{1, 5, 7, 9}
)

// memoryOf is about what a block on its way takes at each level, in MiB, encoder
// and buffers together.
var memoryOf = [...]int{12, 16, 26, 60}

// memoryBudget is what the blocks on their way may take together, in MiB.
const memoryBudget = 200

// workers is how many blocks are compressed at once: one for each core, unless
// their memory forbids.
func (c *ConvertCmd) workers() int {
	return max(1, min(runtime.GOMAXPROCS(0), memoryBudget/memoryOf[c.level()]))
}

func (c *ConvertCmd) level() int {
	if c.Level == nil {
		return 0
	}
	return *c.Level - 1
}

// check looks at what the grammar can't say.
func (c *ConvertCmd) check(s *session) (target diskformat.Format, size int64, err error) {
	if target, err = c.target(); err != nil {
		return target, 0, err
	}
	size = -1
	if c.Size != "" {
		if size, err = parseSize(c.Size); err != nil {
			return target, 0, err
		}
	}
	out, isFile := s.Stdout.(*os.File)
	switch {
	case c.Level != nil && (*c.Level < 1 || *c.Level > 4):
		return target, 0, usagef("--level %d: it is 1 (fastest) to 4 (smallest)", *c.Level)
	case c.Level != nil && target == diskformat.Raw:
		return target, 0, usagef("--level goes with compressed formats, not with raw")
	case c.Size != "" && c.In != std:
		return target, 0, usagef("--size goes with standard input alone; %s has a size of its own", c.In)
	case c.In == std && c.AllowBacking:
		return target, 0, usagef("--allow-backing does not go with standard input, which is RAW")
	case c.In == std && c.Format != "" && diskformat.Format(strings.ToLower(c.Format)) != diskformat.Raw:
		return target, 0, usagef("-f %s: only RAW is read from standard input; the other formats must be read here and there, so put it into a file", c.Format)
	case c.In == std && c.Out == std && size < 0:
		return target, 0, usagef("--size is wanted: %s says how large the disk is at its front, and standard output can't be written there again", orElse(target, diskformat.ZVHD2))
	case c.Out == std && isFile && term.IsTerminal(int(out.Fd())):
		return target, 0, usagef("standard output is a terminal; send it to a file or a program")
	}
	return target, size, nil
}

func orElse(f, other diskformat.Format) diskformat.Format {
	if f == "" {
		return other
	}
	return f
}

// parseSize reads a size as qemu-img does: bytes, or a number with K, M, G or T,
// which are powers of 1024.
func parseSize(text string) (int64, error) {
	digits, shift := strings.TrimSuffix(strings.ToUpper(text), "B"), 0
	digits = strings.TrimSuffix(digits, "I")
	if i := strings.IndexAny(digits, "KMGT"); i >= 0 && i == len(digits)-1 {
		shift = 10 * (1 + strings.IndexByte("KMGT", digits[i]))
		digits = digits[:i]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)>>shift {
		return 0, usagef("--size %s: it is a number of bytes, or one with K, M, G or T", text)
	}
	return n << shift, nil
}

type convertedFile struct {
	Path   string            `json:"path"`
	Format diskformat.Format `json:"format"`
	Size   int64             `json:"size"` // bytes
}

type convertDoc struct {
	Input      convertedFile `json:"input"`
	Output     convertedFile `json:"output"`
	DiskSize   int64         `json:"disk_size"`        // bytes
	Blocks     int64         `json:"blocks,omitempty"` // not of RAW
	DataBlocks int64         `json:"data_blocks,omitempty"`
	Seconds    float64       `json:"seconds"`
	Warnings   warnings      `json:"warnings,omitempty"`
}

// Run converts.
func (c *ConvertCmd) Run(ctx context.Context, s *session) error {
	target, size, err := c.check(s)
	if err != nil {
		return err
	}
	began := s.now()
	if c.In == std {
		stdin, close := s.stdin(ctx)
		defer close()
		return c.finish(ctx, s, orElse(target, diskformat.ZVHD2), func(out sink) (convertDoc, error) {
			doc, err := c.stream(ctx, s, stdin, size, orElse(target, diskformat.ZVHD2), out)
			doc.Seconds = s.now().Sub(began).Seconds()
			return doc, err
		})
	}
	src, err := c.openDisk(c.In)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := src.wholeSectors(); err != nil {
		return err
	}
	if c.Out != std {
		if err := src.differs(c.Out); err != nil {
			return err
		}
	}
	if target == "" {
		target = diskformat.ZVHD2
		if src.Format == diskformat.ZVHD2 {
			target = diskformat.Raw
		}
	}
	if c.Level != nil && target == diskformat.Raw {
		return usagef("--level goes with compressed formats, not with raw")
	}
	var said warnings
	if hints, err := diskformat.ReadHints(src, src.OrigSize); err == nil { // else the conversion says what is wrong
		said.warn(s, inspect.TableNotes(hints)...)
	}
	return c.finish(ctx, s, target, func(out sink) (convertDoc, error) {
		doc, err := c.convert(ctx, s, src, target, out)
		if err == nil {
			err = src.unchanged()
		}
		said.warn(s, src.Notes()...) // some show when the tables have been read
		doc.Warnings = said
		doc.Input = convertedFile{c.In, src.Format, src.size}
		doc.Seconds = s.now().Sub(began).Seconds()
		return doc, err
	})
}

// sink is where OUT goes: file, or if that is nil stream.
type sink struct {
	file   *os.File
	stream io.Writer
}

func (k sink) writer() io.Writer {
	if k.file != nil {
		return k.file
	}
	return k.stream
}

// finish lets convert write OUT, puts it in its place and says what was done.
func (c *ConvertCmd) finish(ctx context.Context, s *session, target diskformat.Format, convert func(sink) (convertDoc, error)) error {
	wrap := func(err error) error {
		return fmt.Errorf("convert %s to %s: %w", c.In, c.Out, interrupted(ctx, err))
	}
	if c.Out == std {
		counted := &countingWriter{w: s.Stdout}
		doc, err := convert(sink{stream: counted})
		if err != nil {
			return wrap(err)
		}
		doc.Output = convertedFile{c.Out, target, counted.n}
		if s.json {
			s.jsonLine(doc)
		} else if !s.quiet {
			var text bytes.Buffer
			doc.print(&text)
			fmt.Fprint(s.Stderr, text.String())
		}
		return nil
	}
	out, err := newOutput(c.Out, c.Force)
	if err != nil {
		return err
	}
	defer out.cancel()
	doc, err := convert(sink{file: out.File})
	if err != nil {
		return wrap(err)
	}
	info, err := out.Stat()
	if err != nil {
		return fmt.Errorf("write %s: %w", c.Out, plain(err))
	}
	// ^C goes to the writer of a pipe too, whose end looks like the disk's: what was
	// interrupted while the last bytes went to the disk must not get its name.
	if err := out.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", c.Out, plain(err))
	}
	if ctx.Err() != nil {
		return wrap(ctx.Err())
	}
	if err := out.commit(); err != nil {
		return err
	}
	doc.Output = convertedFile{c.Out, target, info.Size()}
	return s.result(doc, doc.print)
}

func (doc convertDoc) print(w io.Writer) {
	fmt.Fprintf(w, "%s (%s, %s) -> %s (%s, %s): ", doc.Input.Path, doc.Input.Format, size(doc.Input.Size),
		doc.Output.Path, doc.Output.Format, size(doc.Output.Size))
	if doc.Blocks > 0 {
		fmt.Fprintf(w, "%d of %d blocks hold data, ", doc.DataBlocks, doc.Blocks)
	}
	fmt.Fprintln(w, seconds(doc.Seconds))
}

// countingWriter counts what is written.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// convert writes a disk in another format.
func (c *ConvertCmd) convert(ctx context.Context, s *session, src *diskFile, target diskformat.Format, out sink) (doc convertDoc, err error) {
	total := src.OrigSize
	doc.DiskSize = total
	m := s.bytesMeter("convert", total)
	defer func() { m.close(err) }()
	data := src.Data(ctx)
	switch target {
	case diskformat.ZVHD2:
		made, err := zvhd2.Convert(ctx, out.writer(), src, total, zvhd2.ConvertOptions{
			Options: zvhd2.Options{Level: zstdLevels[c.level()], Concurrency: c.workers(), Progress: m.progress}, Data: data})
		doc.Blocks, doc.DataBlocks = int64(made.Blocks), int64(made.DataBlocks)
		return doc, err
	case diskformat.ZVHD:
		made, err := zvhd.Convert(ctx, out.writer(), src, total, zvhd.Options{
			Level: zlibLevels[c.level()], Concurrency: c.workers(), Progress: m.progress, Data: data})
		doc.Blocks, doc.DataBlocks = int64(made.Blocks), int64(made.DataBlocks)
		return doc, err
	}
	if disk, ok := src.Image.(*zvhd2.File); ok {
		doc.Blocks, doc.DataBlocks = int64(disk.Blocks()), int64(disk.DataBlocks())
		if out.file != nil {
			return doc, disk.Extract(ctx, out.file, zvhd2.ExtractOptions{Options: zvhd2.Options{Progress: m.progress}})
		}
	}
	opts := sparse.CopyOptions{Data: data, Concurrency: c.workers(), Progress: m.progress}
	if out.file != nil {
		return doc, sparse.Copy(ctx, out.file, src, total, opts)
	}
	return doc, sparse.Stream(ctx, out.stream, src, total, opts)
}

// stream writes the RAW disk on standard input in another format. A size of less
// than 0 is not known.
func (c *ConvertCmd) stream(ctx context.Context, s *session, in io.ReadCloser, size int64, target diskformat.Format, out sink) (doc convertDoc, err error) {
	const sniffed = 64 << 10
	head := make([]byte, sniffed)
	n, err := io.ReadFull(in, head)
	head = head[:n]
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return doc, fmt.Errorf("read standard input: %w", err)
	case n == 0:
		return doc, errors.New("standard input is empty; a RAW disk is wanted")
	case c.Format == "":
		found, err := diskformat.Detect(bytes.NewReader(head), int64(n))
		if err != nil && found == "" {
			return doc, fmt.Errorf("standard input: %w", err)
		}
		if long := n == sniffed && found == diskformat.Text; found != diskformat.Raw && !long { // a long text may be a disk's front
			return doc, &kindError{diskformat.ErrWrongFormat, fmt.Sprintf("standard input carries %s, and only RAW is read from there: put it into a file; if it is the disk's own content, say so with -f raw", found.Describe())}
		}
	}
	whole := io.MultiReader(bytes.NewReader(head), in)
	m := s.bytesMeter("convert", max(size, 0))
	defer func() { m.close(err) }()
	switch target {
	case diskformat.ZVHD:
		return doc, usagef("-O zvhd is not made of standard input, only zvhd2 and raw are")
	case diskformat.ZVHD2:
		var made zvhd2.Summary
		made, err = zvhd2.ConvertStream(ctx, out.writer(), readCloser{whole, in}, size,
			zvhd2.Options{Level: zstdLevels[c.level()], Concurrency: c.workers(), Progress: m.progress})
		doc.DiskSize, doc.Blocks, doc.DataBlocks = made.DiskSize, int64(made.Blocks), int64(made.DataBlocks)
	default:
		doc.DiskSize, err = c.streamRaw(ctx, whole, size, out, m)
	}
	doc.Input = convertedFile{c.In, diskformat.Raw, doc.DiskSize}
	return doc, err
}

// readCloser reads from one and closes the other.
type readCloser struct {
	io.Reader
	io.Closer
}

// streamRaw copies the disk on standard input.
func (c *ConvertCmd) streamRaw(ctx context.Context, in io.Reader, size int64, out sink, m *meter) (int64, error) {
	if out.file == nil {
		return 0, usagef("standard input to standard output as raw is what cat does")
	}
	n, err := sparse.CopyStream(ctx, out.file, in, size, ims.MaxDiskSize, m.progress)
	if err == nil && n%diskformat.SectorSize != 0 {
		err = diskformat.Errorf(diskformat.Raw, diskformat.ErrIncomplete, "",
			"standard input had %d bytes, no multiple of %d: a disk consists of whole sectors; it was cut off", n, diskformat.SectorSize)
	}
	return n, err
}

// stdin is standard input, which ends with an error when ctx does: a read of a pipe
// can't be broken off. close lets go of it.
func (s *session) stdin(ctx context.Context) (r io.ReadCloser, close func()) {
	if s.Stdin == nil {
		return io.NopCloser(strings.NewReader("")), func() {}
	}
	pr, pw := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{pw}, struct{ io.Reader }{s.Stdin}, make([]byte, 1<<20))
		pw.CloseWithError(err)
	}()
	stop := context.AfterFunc(ctx, func() { pw.CloseWithError(ctx.Err()) })
	return pr, func() { stop(); pr.Close() }
}
