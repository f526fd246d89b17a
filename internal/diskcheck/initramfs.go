package diskcheck

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/filesystem"
)

// initramfs looks for drivers in an initramfs: one or more cpio archives, one
// after the other with zeros between them. The first ones, with the processor's
// microcode, are not compressed; a compressed one is the last.
type initramfs struct {
	modules map[string]bool
	builtin map[string]bool // from its copy of the kernel's modules.builtin
	src     *filesystem.Source
	whole   bool   // an archive was read to its end
	inner   string // a file in it that holds the rest
}

// inner are files in which dracut's squash module puts all but the beginning.
var inner = []string{"squashfs-root.img", "squash-root.img", "squash/root.img", "erofs-root.img"}

// Limits of an archive.
const (
	maxName   = 4096     // PATH_MAX
	maxWindow = 64 << 20 // of zstd; distributions use up to 8 MiB
)

// compressions are known by their first bytes, as in the kernel's
// lib/decompress.c. Those without open are not read here.
var compressions = []struct {
	magic, name string
	open        func(*bufio.Reader) (io.Reader, func(), error)
}{
	{"\x1f\x8b", "gzip", func(r *bufio.Reader) (io.Reader, func(), error) {
		z, err := gzip.NewReader(r)
		if err == nil {
			z.Multistream(false)
		}
		return z, func() {}, err
	}},
	{"\x28\xb5\x2f\xfd", "zstd", func(r *bufio.Reader) (io.Reader, func(), error) {
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}},
	{"BZh", "bzip2", func(r *bufio.Reader) (io.Reader, func(), error) { return bzip2.NewReader(r), func() {}, nil }},
	{"\x02\x21\x4c\x18", "lz4", func(r *bufio.Reader) (io.Reader, func(), error) { return newLZ4(r), func() {}, nil }},
	{"\xfd7zXZ", "xz", nil},
	{"\x5d\x00\x00", "lzma", nil},
	{"\x89LZO", "lzo", nil},
	{"\x04\x22\x4d\x18", "lz4 frames", nil},
}

// unpacked are buffers of what a compressed stream holds.
var unpacked = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 64<<10) }}

// read walks all archives. An error means that not everything was seen.
func (i *initramfs) read(r io.Reader) error {
	err := i.archives(r)
	if err == nil && i.inner != "" {
		err = filesystem.Errorf(filesystem.ErrUnsupported, "its drivers lie in an image inside it, %s, which is not read here", i.inner)
	}
	return err
}

func (i *initramfs) archives(r io.Reader) error {
	in := bufio.NewReader(r) // r itself if it is one
	for {
		magic, err := skipZeros(in)
		if err != nil {
			return err
		}
		if magic == "" {
			if !i.whole {
				return errors.New("it holds no cpio archive")
			}
			return nil
		}
		if isCPIO(magic) {
			if err := i.archive(in); err != nil {
				return err
			}
			continue
		}
		last, err := i.compressed(in, magic)
		if err != nil || last {
			return err
		}
	}
}

// compressed reads archives from a compressed stream; last tells that what
// follows it was not, or can't be, read on.
func (i *initramfs) compressed(in *bufio.Reader, magic string) (last bool, err error) {
	for _, c := range compressions {
		if !strings.HasPrefix(magic, c.magic) {
			continue
		}
		if c.open == nil {
			return true, filesystem.Errorf(filesystem.ErrUnsupported, "it is compressed with %s, which is not read here", c.name)
		}
		z, done, err := c.open(in)
		if err != nil {
			return true, fmt.Errorf("%s: %w", c.name, err)
		}
		defer done()
		out := unpacked.Get().(*bufio.Reader)
		out.Reset(&spending{z, i.src})
		defer func() {
			out.Reset(nil)
			unpacked.Put(out)
		}()
		for found := false; ; found = true {
			magic, err := skipZeros(out)
			switch {
			case found && (err != nil || !isCPIO(magic)):
				// What follows an archive belongs to no archive; gzip alone says
				// exactly where its stream ends.
				return c.name != "gzip" || err != nil || magic != "", nil
			case err != nil:
				return true, fmt.Errorf("%s: %w", c.name, err)
			case !isCPIO(magic):
				return true, fmt.Errorf("%s: it holds no cpio archive", c.name)
			}
			if err := i.archive(out); err != nil {
				return true, fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	if i.whole {
		return true, nil // something of the boot loader's behind the archives
	}
	return true, filesystem.Errorf(filesystem.ErrUnsupported, "it begins with the unknown bytes %x", magic)
}

func isCPIO(magic string) bool {
	return strings.HasPrefix(magic, "070701") || strings.HasPrefix(magic, "070702")
}

// skipZeros gives the next six bytes that are not padding; "" at the end.
func skipZeros(r *bufio.Reader) (string, error) {
	for {
		b, err := r.Peek(1)
		if len(b) == 0 {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return "", err
		}
		if b[0] != 0 {
			b, err = r.Peek(6)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return string(b), err
		}
		_, _ = r.Discard(1)
	}
}

// archive reads one archive of the "new" form (Linux, Documentation/driver-api/
// early-userspace/buffer-format.rst): for each file 110 characters, of them 13
// numbers of eight hexadecimal digits, the name, the data, both filled up to a
// multiple of four bytes.
func (i *initramfs) archive(r *bufio.Reader) error {
	head := make([]byte, 110)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			return fmt.Errorf("an archive ends early: %w", err)
		}
		size, err1 := strconv.ParseUint(string(head[54:62]), 16, 32)
		nameSize, err2 := strconv.ParseUint(string(head[94:102]), 16, 32)
		if !isCPIO(string(head[:6])) || err1 != nil || err2 != nil || nameSize == 0 || nameSize > maxName {
			return filesystem.Errorf(filesystem.ErrCorrupt, "the head of a file in the archive is damaged")
		}
		name := make([]byte, (110+nameSize+3)&^3-110)
		if _, err := io.ReadFull(r, name); err != nil {
			return fmt.Errorf("an archive ends early: %w", err)
		}
		file := string(name[:nameSize-1])
		if file == "TRAILER!!!" {
			i.whole = true
			return nil
		}
		if m := moduleName(file); m != "" && size > 0 {
			i.modules[m] = true
		}
		if slices.Contains(inner, strings.TrimPrefix(file, "./")) {
			i.inner = file
		}
		size = (size + 3) &^ 3
		if strings.HasSuffix(file, "/modules.builtin") && size <= maxList {
			b := make([]byte, size)
			if _, err := io.ReadFull(r, b); err != nil {
				return fmt.Errorf("an archive ends early: %w", err)
			}
			listed(string(b), i.builtin)
			continue
		}
		if _, err := io.CopyN(io.Discard, r, int64(size)); err != nil {
			return fmt.Errorf("an archive ends early: %w", err)
		}
	}
}

// spending takes what was unpacked off the budget.
type spending struct {
	r   io.Reader
	src *filesystem.Source
}

func (s *spending) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if spent := s.src.Spend(int64(n)); spent != nil {
		return 0, spent
	}
	return n, err
}
