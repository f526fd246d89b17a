package objectcache

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// name is what names an object's files.
type name struct{ generation, role string }

const (
	dataEnding = ".data"
	mapEnding  = ".map"
)

// valid reports whether the name can be that of files.
func (n name) valid() bool {
	if len(n.generation) != 32 || len(n.role) < 1 || len(n.role) > 8 {
		return false
	}
	return strings.Trim(n.generation, "0123456789abcdef") == "" && strings.Trim(n.role, "abcdefghijklmnopqrstuvwxyz") == ""
}

func (n name) file(ending string) string { return n.generation + "-" + n.role + ending }

// parseName takes the name of a file apart.
func parseName(file string) (n name, ending string, ok bool) {
	for _, ending := range []string{dataEnding, mapEnding} {
		if base, ok := strings.CutSuffix(file, ending); ok {
			n.generation, n.role, ok = strings.Cut(base, "-")
			return n, ending, ok && n.valid()
		}
	}
	return n, "", false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The header of a map:
//
//	off size field
//	  0    8 magic "QIPAGES1"
//	  8    4 version, 1
//	 12    4 size of a page, 4096
//	 16    8 size of the object
//	 24   16 generation
//	 40    8 role, filled up with zeros
//	 48    4 CRC-32C of the 48 bytes before
//
// and zeros up to a page. Numbers are little-endian.
const (
	headerMagic   = "QIPAGES1"
	headerVersion = 1
	headerUsed    = 52
)

// object is what the folder has of an object.
type object struct {
	name name
	seed uint32 // CRC-32C of generation and role

	// files is held for reading while the files are used, else to open and close them.
	files      sync.RWMutex
	data, bits file  // nil: not open
	size       int64 // of the object, once the files are open
	gone       bool
	isOpen     atomic.Bool

	regions [16]sync.RWMutex // of the regions with the number modulo 16
	touched []atomic.Uint64  // a bit for each region: used since the hand passed; set when files are opened

	accounts  sync.Mutex
	allocated int64

	last   atomic.Int64 // when it was used, since the cache was made; 0: not yet
	used   time.Time    // by an earlier process
	ringed bool         // it is in the cache's ring; guarded by the cache's lock
}

func newObject(n name) *object {
	b := make([]byte, 24)
	_, _ = hex.Decode(b, []byte(n.generation)) // n is valid
	copy(b[16:], n.role)
	return &object{name: n, seed: crc32.Checksum(b, castagnoli)}
}

// header makes the header of a map.
func (o *object) header(size int64) []byte {
	b := make([]byte, PageSize)
	copy(b, headerMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], headerVersion)
	le.PutUint32(b[12:], PageSize)
	le.PutUint64(b[16:], uint64(size))
	_, _ = hex.Decode(b[24:], []byte(o.name.generation))
	copy(b[40:48], o.name.role)
	le.PutUint32(b[48:], crc32.Checksum(b[:48], castagnoli))
	return b
}

// parseHeader returns the object's size; false if b is not the header of its map.
func (o *object) parseHeader(b []byte) (size int64, ok bool) {
	size = int64(binary.LittleEndian.Uint64(b[16:]))
	return size, size > 0 && bytes.Equal(b[:headerUsed], o.header(size)[:headerUsed])
}

// entry is what the map says of a page. It is not 0.
func (o *object) entry(page int64, content []byte) uint32 {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(page))
	return max(1, crc32.Update(crc32.Update(o.seed, castagnoli, n[:]), castagnoli, content))
}

// anySize is the size of an object of which only its map knows the size.
const anySize = -1

// errGone says that an object was removed meanwhile.
var errGone = fmt.Errorf("it was removed: %w", fs.ErrNotExist)

// use opens the files if they are not open, and keeps them so until done is called. With
// create they are made if they are not there or not what they should be; else that is
// fs.ErrNotExist.
func (o *object) use(c *Cache, d disk, size int64, create bool) (done func(), err error) {
	for {
		o.files.RLock()
		if o.data != nil && (o.size == size || size == anySize) {
			return o.files.RUnlock, nil
		}
		o.files.RUnlock()
		if err := o.open(c, d, size, create); err != nil {
			return nil, err
		}
	}
}

func (o *object) open(c *Cache, d disk, size int64, create bool) error {
	o.files.Lock()
	defer o.files.Unlock()
	switch {
	case o.gone:
		return errGone
	case o.data != nil && (o.size == size || size == anySize):
		return nil
	case o.data != nil: // of another size: not the same bytes
		_ = o.closeLocked()
		if !create {
			return fs.ErrNotExist
		}
	}
	bits, err := d.Open(o.name.file(mapEnding), create)
	if err != nil {
		return err
	}
	data, err := d.Open(o.name.file(dataEnding), create)
	if err != nil {
		_ = bits.Close()
		return err
	}
	head := make([]byte, headerUsed)
	_, err = bits.ReadAt(head, 0)
	if err == nil || short(err) {
		found, ok := o.parseHeader(head)
		switch {
		case err == nil && ok && (found == size || size == anySize):
			size = found
		case !create:
			err = fs.ErrNotExist
		default: // there was nothing, or what is not this object's
			if err = errors.Join(bits.Truncate(), data.Truncate()); err == nil {
				_, err = bits.WriteAt(o.header(size), 0)
			}
		}
	}
	if err == nil {
		bits.Touch()
	}
	if err != nil {
		_ = bits.Close()
		_ = data.Close()
		return err
	}
	if o.size != size {
		o.touched = make([]atomic.Uint64, (size-1)/regionSize/64+1)
	}
	o.data, o.bits, o.size = data, bits, size
	o.isOpen.Store(true)
	c.opened(o)
	return nil
}

// closeFiles closes the files when nobody uses them any more.
func (o *object) closeFiles() error {
	o.files.Lock()
	defer o.files.Unlock()
	return o.closeLocked()
}

func (o *object) closeLocked() error {
	if o.data == nil {
		return nil
	}
	err := errors.Join(o.data.Close(), o.bits.Close())
	o.data, o.bits = nil, nil
	o.isOpen.Store(false)
	return err
}

// remove removes the files: the map first, without which the data is nothing.
func (o *object) remove(d disk) error {
	o.files.Lock()
	defer o.files.Unlock()
	o.gone = true
	_ = o.closeLocked()
	var errs []error
	for _, ending := range []string{mapEnding, dataEnding} {
		if err := d.Remove(o.name.file(ending)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// account counts what the files take. The caller uses them.
func (o *object) account(c *Cache) error {
	o.accounts.Lock()
	defer o.accounts.Unlock()
	now := int64(0)
	for _, f := range []file{o.data, o.bits} {
		n, err := f.Allocated()
		if err != nil {
			return err
		}
		now += n
	}
	c.used.Add(now - o.allocated)
	o.allocated = now
	return nil
}

// region is the lock of the region at off.
func (o *object) region(off int64) *sync.RWMutex {
	return &o.regions[off/regionSize%int64(len(o.regions))]
}

// touch notes that the region at off is used.
func (o *object) touch(off int64) {
	r := off / regionSize
	if bit := uint64(1) << (r % 64); o.touched[r/64].Load()&bit == 0 {
		o.touched[r/64].Or(bit)
	}
}

// untouch clears the bit of region r and reports whether it was set.
func (o *object) untouch(r int64) bool {
	bit := uint64(1) << (r % 64)
	return r/64 < int64(len(o.touched)) && o.touched[r/64].And(^bit)&bit != 0
}

func entryAt(page int64) int64 { return PageSize + page*entrySize }

// errBad says that a page is not what its entry says.
var errBad = errors.New("a page is not what its entry says")

// read reads length bytes from off on, within a region, into scratch, which has room for
// the whole pages and for their entries. It returns where they are: nil if a page is absent.
func (o *object) read(scratch []byte, off, length int64) ([]byte, error) {
	first, last := off/PageSize, (off+length-1)/PageSize
	n := last - first + 1
	lock := o.region(off)
	lock.RLock()
	defer lock.RUnlock()
	entries := scratch[:n*entrySize]
	if _, err := o.bits.ReadAt(entries, entryAt(first)); err != nil {
		if short(err) {
			return nil, nil
		}
		return nil, err
	}
	for i := range n {
		if binary.LittleEndian.Uint32(entries[i*entrySize:]) == 0 {
			return nil, nil
		}
	}
	pages := scratch[n*entrySize:][:min(n*PageSize, o.size-first*PageSize)]
	if _, err := o.data.ReadAt(pages, first*PageSize); err != nil {
		if short(err) {
			return nil, errBad
		}
		return nil, err
	}
	for i := range n {
		page := pages[i*PageSize : min((i+1)*PageSize, int64(len(pages)))]
		if o.entry(first+i, page) != binary.LittleEndian.Uint32(entries[i*entrySize:]) {
			return nil, errBad
		}
	}
	o.touch(off)
	return pages[off-first*PageSize:][:length], nil
}

// write stores p, whole pages or those up to the object's end, from off on, within a region.
func (o *object) write(p []byte, off int64) error {
	first := off / PageSize
	entries := make([]byte, 0, (len(p)+PageSize-1)/PageSize*entrySize)
	for i := int64(0); i*PageSize < int64(len(p)); i++ {
		page := p[i*PageSize : min((i+1)*PageSize, int64(len(p)))]
		entries = binary.LittleEndian.AppendUint32(entries, o.entry(first+i, page))
	}
	lock := o.region(off)
	lock.Lock()
	defer lock.Unlock()
	o.touch(off)
	if _, err := o.data.WriteAt(p, off); err != nil {
		return fmt.Errorf("write pages: %w", err)
	}
	if _, err := o.bits.WriteAt(entries, entryAt(first)); err != nil {
		return fmt.Errorf("write entries: %w", err)
	}
	return nil
}

// clear makes pages absent: n bytes from off on, within a region.
func (o *object) clear(off, n int64) error {
	lock := o.region(off)
	lock.Lock()
	defer lock.Unlock()
	_, err := o.bits.WriteAt(make([]byte, (n+PageSize-1)/PageSize*entrySize), entryAt(off/PageSize))
	return err
}

// evict gives the space of region r back.
func (o *object) evict(r int64) error {
	off := r * regionSize
	lock := o.region(off)
	lock.Lock()
	defer lock.Unlock()
	const entries = regionSize / PageSize * entrySize
	if _, err := o.bits.WriteAt(make([]byte, entries), entryAt(off/PageSize)); err != nil {
		return err
	}
	if err := o.data.Punch(off, regionSize); err != nil {
		return err
	}
	return o.bits.Punch(entryAt(off/PageSize), entries)
}
