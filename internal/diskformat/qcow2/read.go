package qcow2

import (
	"fmt"
	"io"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/padded"
)

// ReadAt reads the disk; see [diskformat.Image]. Where the file ends within its last
// cluster, zeros follow to the end of that, as QEMU has it, and [File.Notes] says so. A
// cluster that lies behind the file's end is an ErrIncomplete, even though QEMU reads
// zeros there too.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a qcow2 disk: the offset %d is negative", off)
	}
	if off >= f.Size() {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), f.Size()-off)]
	for done := 0; done < len(p); {
		n, err := f.readRun(p[done:], off+int64(done))
		if err != nil {
			return done, fmt.Errorf("reading a qcow2 disk at byte %d: %w", off+int64(done), err)
		}
		done += n
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return len(p), nil
}

// readRun reads the beginning of p, as much as is stored in one way.
func (f *File) readRun(p []byte, off int64) (int, error) {
	r, err := f.lookup(off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	p = p[:r.length]
	switch r.kind {
	case zero:
		clear(p)
	case unallocated:
		err = f.readBacking(p, off)
	case standard:
		if r.host > f.data.whole || r.length > f.data.whole-r.host {
			return 0, incomplete("cluster", "it lies at %d of the file, which has %d bytes: the file was cut off", r.host, f.data.size)
		}
		f.noteEnd(r)
		err = diskformat.ReadFull(padded.Reader{R: f.data.r, Size: f.data.size}, p, r.host)
	case compressed:
		err = f.readCompressed(p, off%f.h.clusterSize(), r)
	}
	return len(p), err
}

// noteEnd notes a run of clusters at whose end the file is missing.
func (f *File) noteEnd(r run) {
	if r.kind == standard && r.host+r.length > f.data.size && r.host+r.length <= f.data.whole {
		f.short.Store(true)
	}
}

// readBacking reads what the file does not hold. Beyond the backing disk's end
// there are zeros.
func (f *File) readBacking(p []byte, off int64) error {
	n := int64(0)
	if f.backing != nil {
		n = min(int64(len(p)), max(0, f.backing.Size()-off))
		if err := diskformat.ReadFull(f.backing, p[:n], off); err != nil {
			return fmt.Errorf("reading the backing disk: %w", err)
		}
	}
	clear(p[n:])
	return nil
}

// readCompressed reads p from byte skip of the cluster that is stored at r. A
// cluster that is wanted whole is decoded in place; of others the last ones are
// kept, so that small reads in sequence do not decode them again and again.
func (f *File) readCompressed(p []byte, skip int64, r run) error {
	if int64(len(p)) == f.h.clusterSize() {
		return f.decode(p, r)
	}
	plain := f.clusters.Get(r.host)
	if plain == nil {
		plain = make([]byte, f.h.clusterSize())
		if err := f.decode(plain, r); err != nil {
			return err
		}
		f.clusters.Put(r.host, plain)
	}
	copy(p, plain[skip:])
	return nil
}
