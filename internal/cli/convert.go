package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/create"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/inspect"
)

// ConvertCmd writes a disk file in another format.
type ConvertCmd struct {
	inputFlags
	In     string            `arg:"" name:"in" help:"Disk file of any format that is read, a block device, or - for standard input, which is RAW."`
	Out    string            `arg:"" name:"out" help:"File to write, or - for standard output."`
	Output string            `short:"O" name:"output-format" placeholder:"FORMAT" help:"Format of OUT: zvhd2, raw, qcow2, vmdk, vhd, vhdx or zvhd. Default: by the ending of OUT's name, else zvhd2, or raw if IN is ZVHD2."`
	Set    map[string]string `short:"o" name:"option" placeholder:"KEY=VALUE" help:"Option of OUT's format, once for each: compression=none, zstd or zlib of qcow2 (default: none); frame=unit or block of zvhd2; subformat=streamOptimized or monolithicSparse of vmdk; subformat=dynamic or fixed and size=exact or mib of vhd (Azure wants fixed and mib). Default: the first of each."`
	Frame  string            `placeholder:"unit|block" help:"How ZVHD2 is compressed, as -o frame= says it: unit, in frames of 64 KiB that are read alone; block, in whole blocks of 2 MiB, the published form, for other clouds. Default: unit."`
	Level  *int              `placeholder:"1-4" help:"Compression level: 1 is fastest, 4 smallest. Default: 1."`
	Size   string            `placeholder:"SIZE" help:"Size of the disk on standard input, in bytes or with K, M, G or T. Wanted if OUT is standard output."`
	Force  bool              `help:"Replace OUT if it is there."`
}

// Help shows the command's use.
func (ConvertCmd) Help() string {
	return `IN may be raw, qcow2, vmdk, vhd, vhdx, vdi, qcow, qed, zvhd or zvhd2; which it is says its content, not its name. Holes are neither read nor stored, RAW is written sparse, and all cores are used. OUT appears when it is whole and on the disk, not before.

Examples:

    quickims convert disk.raw disk.zvhd2
    quickims convert disk.qcow2 disk.zvhd2
    quickims convert -O raw /dev/vg0/disk disk.raw
    quickims convert --frame block disk.qcow2 disk.zvhd2
    zcat disk.raw.gz | quickims convert - disk.zvhd2
    quickims convert disk.vmdk - | ssh host "cat >disk.zvhd2"
    quickims convert -o compression=zstd disk.raw disk.qcow2
    quickims convert -o subformat=fixed -o size=mib disk.qcow2 azure.vhd
`
}

// std stands for standard input or output.
const std = "-"

// otherEndings are names' endings that do not begin with a format's name.
var otherEndings = map[string]diskformat.Format{
	".img": diskformat.Raw, ".bin": diskformat.Raw, ".dd": diskformat.Raw, ".vpc": diskformat.VHD,
}

// notWritten are endings of formats that users may hope for.
var notWritten = []string{".qcow", ".vdi", ".qed", ".iso", ".ova"}

// target is OUT's format as far as the call tells: nil leaves it to IN.
func (c *ConvertCmd) target() (*create.Format, error) {
	if c.Output != "" {
		f, err := create.Find(c.Output)
		if err != nil {
			return nil, usagef("-O %v", err)
		}
		return &f, nil
	}
	ending := strings.ToLower(filepath.Ext(c.Out))
	if slices.Contains(notWritten, ending) && c.Out != std {
		return nil, usagef("%s: convert does not write %s (-O zvhd2 writes that under this name)", c.Out, ending[1:])
	}
	for _, f := range create.Formats {
		if c.Out != std && (ending == "."+string(f.Name) || otherEndings[ending] == f.Name) {
			return &f, nil
		}
	}
	return nil, nil
}

// options are those of OUT.
func (c *ConvertCmd) options() create.Options {
	o := create.Options{Set: c.Set}
	if c.Frame != "" {
		o.Set = map[string]string{create.Frame: c.Frame}
		maps.Copy(o.Set, c.Set)
	}
	if c.Level != nil {
		o.Level = *c.Level
	}
	if c.Out != std {
		o.Name = filepath.Base(c.Out)
	}
	return o
}

// settle is OUT's format, once IN is known as far as it is.
func (c *ConvertCmd) settle(target *create.Format, in diskformat.Format) (create.Format, error) {
	if target == nil {
		name := diskformat.ZVHD2
		if in == diskformat.ZVHD2 {
			name = diskformat.Raw
		}
		f, err := create.Find(string(name))
		if err != nil {
			return f, err
		}
		target = &f
	}
	if err := target.Check(c.options()); err != nil {
		return *target, usagef("%v", err)
	}
	return *target, nil
}

// check looks at what the grammar can't say.
func (c *ConvertCmd) check(s *session) (target *create.Format, size int64, err error) {
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
	case c.Level != nil && *c.Level == 0:
		return target, 0, usagef("--level is 0; it must be 1 (fastest) to 4 (smallest)")
	case c.Size != "" && c.In != std:
		return target, 0, usagef("--size goes with standard input alone; %s has a size of its own", c.In)
	case c.In == std && c.AllowBacking:
		return target, 0, usagef("--allow-backing does not go with standard input, which is RAW")
	case c.In == std && c.Format != "" && diskformat.Format(strings.ToLower(c.Format)) != diskformat.Raw:
		return target, 0, usagef("-f %s: only RAW is read from standard input; the other formats must be read here and there, so put it into a file", c.Format)
	case c.In == std && c.Out == std && size < 0:
		return target, 0, usagef("--size is required: the file says how large the disk is at its front, and standard output cannot be written there again")
	case c.Out == std && isFile && term.IsTerminal(int(out.Fd())):
		return target, 0, usagef("standard output is a terminal; send it to a file or a program")
	}
	if target != nil {
		_, err = c.settle(target, "")
	}
	return target, size, err
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
		format, err := c.settle(target, diskformat.Raw)
		if err != nil {
			return err
		}
		return c.finish(ctx, s, format.Name, func(out sink) (convertDoc, error) {
			doc, err := c.stream(ctx, s, stdin, size, format.Name, out)
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
	format, err := c.settle(target, src.Format)
	if err != nil {
		return err
	}
	var said warnings
	if hints, err := diskformat.ReadHints(src, src.OrigSize); err == nil { // else the conversion says what is wrong
		said.warn(s, inspect.TableNotes(hints)...)
	}
	return c.finish(ctx, s, format.Name, func(out sink) (convertDoc, error) {
		doc, err := c.convert(ctx, s, src, format, out)
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
func (c *ConvertCmd) convert(ctx context.Context, s *session, src *diskFile, target create.Format, out sink) (doc convertDoc, err error) {
	total := src.OrigSize
	doc.DiskSize = total
	m := s.bytesMeter("convert", total)
	defer func() { m.close(err) }()
	opts := c.options()
	opts.Data, opts.Progress = src.Data(ctx), m.progress
	made, err := target.Write(ctx, out.writer(), src.Image, total, opts)
	if errors.Is(err, create.ErrNeedsFile) {
		err = usagef("%s with these options cannot be written to standard output: its front is known only at the end; write to a file", target.Name)
	}
	doc.Blocks, doc.DataBlocks = made.Blocks, made.DataBlocks
	return doc, err
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
	case diskformat.ZVHD2:
		var made zvhd2.Summary
		made, err = zvhd2.ConvertStream(ctx, out.writer(), readCloser{whole, in}, size,
			c.options().ZVHD2(m.progress))
		doc.DiskSize, doc.Blocks, doc.DataBlocks = made.DiskSize, int64(made.Blocks), int64(made.DataBlocks)
	case diskformat.Raw:
		doc.DiskSize, err = c.streamRaw(ctx, whole, size, out, m)
	default:
		return doc, usagef("-O %s is not made of standard input, only zvhd2 and raw are", target)
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
