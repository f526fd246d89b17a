package importer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

const (
	project = "a0000000000000000000000000000001"
	bucket  = "disks"
)

// bench is an importer over a real database and a real store. Faults are planned in
// the functions, which get the store's own answer.
type bench struct {
	objectstore.Store
	t       *testing.T
	imp     *Importer
	catalog *catalog.Catalog
	buckets string
	log     *safeBuffer

	mu    sync.Mutex
	now   time.Time
	stat  func(loc objectstore.Location, info objectstore.ObjectInfo, err error) (objectstore.ObjectInfo, error)
	read  func(loc objectstore.Location) error
	adopt func(ctx context.Context, info objectstore.ObjectInfo, err error) (objectstore.ObjectInfo, error)
}

type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newBench(t *testing.T, opts Options) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t, buckets: filepath.Join(dir, "buckets"), log: &safeBuffer{}, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	for _, folder := range []string{filepath.Join(b.buckets, bucket), filepath.Join(dir, "images")} {
		must(t, os.MkdirAll(folder, 0o700))
	}
	store, err := objectstore.OpenDir(b.buckets, filepath.Join(dir, "images"))
	must(t, err)
	t.Cleanup(func() { store.Close() })
	b.Store = store
	db, err := database.Open(t.Context(), databasetest.SQLite(t), database.Options{})
	must(t, err)
	t.Cleanup(func() { db.Close() })
	b.catalog = catalog.New(db, catalog.Options{Clock: b.clock})
	opts.Limits = ims.Limits{Images: 100, Imports: 100, Attachments: 100}
	opts.MayRead = func(_ context.Context, p, name string) (bool, error) { return p == project && name != "others", nil }
	opts.Enqueue = func(context.Context, *database.Tx, string) error { return nil }
	opts.Logger = slog.New(slog.NewTextHandler(b.log, nil))
	b.imp = New(b.catalog, b, opts)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func (b *bench) Stat(ctx context.Context, loc objectstore.Location) (objectstore.ObjectInfo, error) {
	info, err := b.Store.Stat(ctx, loc)
	if b.stat != nil {
		return b.stat(loc, info, err)
	}
	return info, err
}

func (b *bench) Open(ctx context.Context, loc objectstore.Location, cond objectstore.Condition, off, n int64) (io.ReadCloser, error) {
	if b.read != nil {
		if err := b.read(loc); err != nil {
			return nil, err
		}
	}
	return b.Store.Open(ctx, loc, cond, off, n)
}

func (b *bench) Adopt(ctx context.Context, src objectstore.Location, cond objectstore.Condition, dst objectstore.Location, opts objectstore.AdoptOptions) (objectstore.ObjectInfo, error) {
	info, err := b.Store.Adopt(ctx, src, cond, dst, opts)
	if b.adopt != nil {
		return b.adopt(ctx, info, err)
	}
	return info, err
}

func away(op string) error { return &objectstore.Error{Op: op, Err: objectstore.ErrUnavailable} }

// file puts an object into a bucket, in the place of the one before.
func (b *bench) file(name, key string, content []byte) {
	b.t.Helper()
	path := filepath.Join(b.buckets, name, key)
	must(b.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(b.t, os.WriteFile(path+".new", content, 0o600))
	must(b.t, os.Rename(path+".new", path))
}

// raw puts a RAW file with its bitmap into the bucket.
func (b *bench) raw(key string, disk []byte) {
	b.t.Helper()
	m, err := bitmap.Build(b.t.Context(), bytes.NewReader(disk), int64(len(disk)), bitmap.Options{})
	must(b.t, err)
	var mf bytes.Buffer
	_, err = m.WriteTo(&mf)
	must(b.t, err)
	b.file(bucket, key, disk)
	b.file(bucket, ims.BitmapKey(key), mf.Bytes())
}

func spec(key string) ims.ImportSpec {
	return ims.ImportSpec{Name: "n", Env: ims.EnvData, Bucket: bucket, Key: key, MinDiskGiB: 1, EnterpriseProjectID: ims.DefaultEnterpriseProject}
}

func (b *bench) accept(s ims.ImportSpec) (string, error) {
	return b.imp.Accept(b.t.Context(), ims.Principal{ProjectID: project, DomainID: "d"}, s)
}

func (b *bench) accepted(key string) string {
	b.t.Helper()
	id, err := b.accept(spec(key))
	must(b.t, err)
	return id
}

// ended works on a job until it has ended, as the queue does.
func (b *bench) ended(id string) ims.Job {
	b.t.Helper()
	for range 100 {
		if _, err := b.imp.Work(b.t.Context(), id); err != nil {
			b.t.Fatal(err)
		}
		if job := b.job(id); job.Status.Final() {
			return job
		}
	}
	b.t.Fatalf("the job does not end: %s", b.log)
	return ims.Job{}
}

func (b *bench) job(id string) ims.Job {
	b.t.Helper()
	job, err := b.catalog.Job(b.t.Context(), project, id)
	must(b.t, err)
	return job
}

func (b *bench) image(id string) ims.Image {
	b.t.Helper()
	img, err := b.catalog.Image(b.t.Context(), project, b.job(id).ImageID)
	must(b.t, err)
	return img
}

// disk is one of 4 MiB whose first half is data.
func disk(fill byte) []byte {
	d := make([]byte, 4<<20)
	copy(d, bytes.Repeat([]byte{fill, 2, 3}, 700_000))
	return d
}

// TestImport: the image is what the file was, also when the file is gone.
func TestImport(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.raw("d.raw", disk(1))
	id := b.accepted("d.raw")
	if job := b.ended(id); job.Status != ims.JobSuccess || job.Percent != 100 || job.Attempt != 1 {
		t.Fatalf("%+v\n%s", job, b.log)
	}
	must(t, os.RemoveAll(filepath.Join(b.buckets, bucket)))
	data := b.image(id).Data
	body, err := b.Store.Open(t.Context(), objectstore.Location{Key: data.Key}, objectstore.Condition{ETag: data.ETag}, 0, data.Size)
	must(t, err)
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, disk(1)) || data.BitmapKey == "" {
		t.Errorf("%d bytes, %v, %+v", len(got), err, data)
	}
}

// TestAcceptRefuses what shows without a look at the content, and makes nothing of it.
// TestSystemIsLookedAt: a system disk's job warns of its system, in a number of reads that
// is bounded; a data disk's does not.
func TestSystemIsLookedAt(t *testing.T) {
	t.Parallel()
	// A partition table whose only partition ends beyond the disk, and a boot sector.
	broken := disk(1)
	clear(broken[:4096])
	copy(broken[446:], "\x80\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x00\x10\x00")
	copy(broken[510:], "\x55\xaa")
	for _, env := range []ims.EnvType{ims.EnvECS, ims.EnvData} {
		b := newBench(t, Options{})
		b.raw("d.raw", broken)
		reads := 0
		b.read = func(objectstore.Location) error { reads++; return nil }
		sp := spec("d.raw")
		sp.Env = env
		id, err := b.accept(sp)
		must(t, err)
		job := b.ended(id)
		warned := slices.ContainsFunc(job.Source.Warnings, func(w ims.Warning) bool {
			return w.ID == "root-filesystem" && strings.Contains(w.Text, "no file system of the disk holds a system")
		})
		if job.Status != ims.JobSuccess || warned != (env == ims.EnvECS) || reads > 50 {
			t.Errorf("%s: %s, %d reads, %+v", env, job.Status, reads, job.Source.Warnings)
		}
	}
}

func TestAcceptRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.raw("good.raw", disk(1))
	b.file("others", "good.raw", disk(1))
	b.file(bucket, "empty.raw", nil)
	b.file(bucket, "alone.raw", disk(1))
	b.file(bucket, "huge.raw", nil)
	must(t, os.Truncate(filepath.Join(b.buckets, bucket, "huge.raw"), ims.MaxFileSize+512))
	from := func(name, key string) ims.ImportSpec { s := spec(key); s.Bucket = name; return s }
	hidden := ""
	for _, tt := range []struct {
		what string
		spec ims.ImportSpec
		code ims.Code
		says string
	}{
		{"another project's bucket", from("others", "good.raw"), ims.CodeBucketAccess, `"others"`},
		{"no bucket", from("nobodys", "good.raw"), ims.CodeBucketAccess, `"nobodys"`},
		{"no object", spec("none.raw"), ims.CodeFile, `"none.raw"`},
		{"an empty object", spec("empty.raw"), ims.CodeFile, "empty"},
		{"a file that is too large", spec("huge.raw"), ims.CodeFileTooBig, "1 TiB"},
		{"the bitmap", spec("good.mf"), ims.CodeFile, "bitmap"},
		{"RAW without its bitmap", spec("alone.raw"), ims.CodeFile, `"alone.mf"`},
	} {
		_, err := b.accept(tt.spec)
		if ims.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v; want %s that names %s", tt.what, err, tt.code, tt.says)
			continue
		}
		if e, ok := errors.AsType[*ims.Error](err); ok && tt.code == ims.CodeBucketAccess {
			text := strings.ReplaceAll(e.Detail, tt.spec.Bucket, "NAME")
			if hidden != "" && hidden != text {
				t.Errorf("%s: %q, but of another project's bucket it says %q", tt.what, text, hidden)
			}
			hidden = text
		}
	}
	b.stat = func(_ objectstore.Location, info objectstore.ObjectInfo, err error) (objectstore.ObjectInfo, error) {
		return info, away("stat")
	}
	_, err := b.accept(spec("good.raw"))
	if e, ok := errors.AsType[*ims.Error](err); !ok || e.Kind() != ims.KindUnavailable {
		t.Errorf("a store that is away: %v", err)
	}
	b.stat = func(_ objectstore.Location, info objectstore.ObjectInfo, err error) (objectstore.ObjectInfo, error) {
		info.Class = "GLACIER"
		return info, err
	}
	if _, err := b.accept(spec("good.raw")); ims.CodeOf(err) != ims.CodeBucketAccess || !strings.Contains(err.Error(), "GLACIER") {
		t.Errorf("an object that must be restored first: %v", err)
	}
	if images, err := b.catalog.Images(t.Context(), project, ims.ImageFilter{}); err != nil || len(images) != 0 {
		t.Errorf("%d images were made, %v", len(images), err)
	}
}

// TestContentFailsTheJob with the code that its fault has everywhere.
func TestContentFailsTheJob(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, after func(b *bench)
		code          ims.Code
		says          string
	}{
		"min_disk": {func(b *bench) {
			b.file(bucket, "d.raw", nil)
			must(b.t, os.Truncate(filepath.Join(b.buckets, bucket, "d.raw"), ims.GiB+512))
			b.file(bucket, "d.mf", []byte("x"))
		}, nil, ims.CodeDiskSize, "min_disk"},
		"another disk's bitmap": {func(b *bench) {
			b.raw("other.raw", disk(1)[:2<<20])
			b.file(bucket, "d.raw", disk(1))
			mf, err := os.ReadFile(filepath.Join(b.buckets, bucket, "other.mf"))
			must(b.t, err)
			b.file(bucket, "d.mf", mf)
		}, nil, ims.CodeFile, "d.mf"},
		"it grew beyond 1 TiB": {func(b *bench) { b.raw("d.raw", disk(1)) }, func(b *bench) {
			must(b.t, os.Truncate(filepath.Join(b.buckets, bucket, "d.raw"), ims.MaxFileSize+512))
		}, ims.CodeFileTooBig, "1 TiB"},
		"it was emptied":           {func(b *bench) { b.raw("d.raw", disk(1)) }, func(b *bench) { b.file(bucket, "d.raw", nil) }, ims.CodeFile, "empty"},
		"the bitmap went away":     {func(b *bench) { b.raw("d.raw", disk(1)) }, func(b *bench) { must(b.t, os.Remove(filepath.Join(b.buckets, bucket, "d.mf"))) }, ims.CodeFile, "d.mf"},
		"the object went away":     {func(b *bench) { b.raw("d.raw", disk(1)) }, func(b *bench) { must(b.t, os.Remove(filepath.Join(b.buckets, bucket, "d.raw"))) }, ims.CodeFile, "source"},
		"a store without space":    {func(b *bench) { b.raw("d.raw", disk(1)) }, func(b *bench) { b.adopt = failing(objectstore.ErrNoSpace) }, ims.CodeInternal, "space"},
		"a bucket that was closed": {func(b *bench) { b.raw("d.raw", disk(1)) }, func(b *bench) { b.adopt = failing(objectstore.ErrDenied) }, ims.CodeFile, "access"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, Options{})
			tt.before(b)
			id := b.accepted("d.raw")
			if tt.after != nil {
				tt.after(b)
			}
			job := b.ended(id)
			if job.Status != ims.JobFail || job.ErrorCode != tt.code || !strings.Contains(job.FailReason, tt.says) {
				t.Errorf("%s %s %q, want %s that names %s", job.Status, job.ErrorCode, job.FailReason, tt.code, tt.says)
			}
			if img := b.image(id); img.Status != ims.ImageKilled {
				t.Errorf("the image is %s", img.Status)
			}
		})
	}
}

func failing(with error) func(context.Context, objectstore.ObjectInfo, error) (objectstore.ObjectInfo, error) {
	return func(context.Context, objectstore.ObjectInfo, error) (objectstore.ObjectInfo, error) {
		return objectstore.ObjectInfo{}, &objectstore.Error{Op: "adopt", Err: with}
	}
}

// TestLaterAttemptKeepsTheFirstPin: an attempt that follows another works on the object
// that the first one saw, or fails. The bytes of two generations never mix, and what was
// put in the object's place meanwhile is not what was asked for.
func TestLaterAttemptKeepsTheFirstPin(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.raw("d.raw", disk(1))
	id := b.accepted("d.raw")
	b.adopt = func(context.Context, objectstore.ObjectInfo, error) (objectstore.ObjectInfo, error) {
		return objectstore.ObjectInfo{}, away("adopt")
	}
	if again, err := b.imp.Work(t.Context(), id); again == 0 || err != nil || b.job(id).Source.ETag == "" {
		t.Fatalf("the first attempt: again in %v, %v, %+v", again, err, b.job(id))
	}
	pinned := b.job(id).Source
	b.adopt = nil
	b.raw("d.raw", disk(9)) // of the same size, as good as the first
	job := b.ended(id)
	if job.Attempt < 2 || job.Status != ims.JobFail || job.ErrorCode != ims.CodeFile || !strings.Contains(job.FailReason, "changed") {
		t.Errorf("attempt %d: %s %s %q", job.Attempt, job.Status, job.ErrorCode, job.FailReason)
	}
	if job.Source.ETag != pinned.ETag || job.Source.BitmapETag != pinned.BitmapETag {
		t.Errorf("the pin was %+v and is %+v", pinned, job.Source)
	}
}

// TestAdoptedSize: a store that adopts another number of bytes than the source has makes
// no image.
func TestAdoptedSize(t *testing.T) {
	t.Parallel()
	for _, by := range []int64{-512, 512} {
		b := newBench(t, Options{})
		b.raw("d.raw", disk(1))
		id := b.accepted("d.raw")
		b.adopt = func(_ context.Context, info objectstore.ObjectInfo, err error) (objectstore.ObjectInfo, error) {
			info.Size += by
			return info, err
		}
		if job := b.ended(id); job.Status != ims.JobFail || job.ErrorCode != ims.CodeFile {
			t.Errorf("%d bytes more: %s %s %q", by, job.Status, job.ErrorCode, job.FailReason)
		}
		if img := b.image(id); img.Status != ims.ImageKilled {
			t.Errorf("%d bytes more: the image is %s", by, img.Status)
		}
	}
}

// TestLostLease: a worker whose job another one has taken stops at once, says nothing of
// the job, and writes nothing of it.
func TestLostLease(t *testing.T) {
	t.Parallel()
	const lease = 300 * time.Millisecond
	b := newBench(t, Options{Lease: lease})
	b.raw("d.raw", disk(1))
	id := b.accepted("d.raw")
	b.adopt = func(ctx context.Context, info objectstore.ObjectInfo, _ error) (objectstore.ObjectInfo, error) {
		for taken := false; !taken; { // the first one's renewals run meanwhile
			b.advance(2 * lease)
			var err error
			if _, taken, err = b.catalog.ClaimJob(t.Context(), id, time.Hour); err != nil {
				t.Error(err)
				return info, err
			}
		}
		select {
		case <-ctx.Done():
			return objectstore.ObjectInfo{}, ctx.Err()
		case <-time.After(20 * time.Second):
			t.Error("the work of a worker without a lease goes on")
			return info, nil
		}
	}
	if again, err := b.imp.Work(t.Context(), id); again != 0 || err != nil {
		t.Errorf("again in %v, %v", again, err)
	}
	if job := b.job(id); job.Attempt != 2 || job.Status != ims.JobRunning || job.ErrorCode != "" {
		t.Errorf("the other's job: %+v", job)
	}
	if log := b.log.String(); !strings.Contains(log, "another worker has the job") || strings.Contains(log, "import failed") {
		t.Errorf("the log: %s", log)
	}
}

// TestPassingFaults are tried again, each time a little later, and fail the job in the
// end; one that passes leaves no trace.
func TestPassingFaults(t *testing.T) {
	t.Parallel()
	for _, faults := range []int{1, 7, 8} {
		b := newBench(t, Options{Backoff: time.Millisecond})
		b.raw("d.raw", disk(1))
		id := b.accepted("d.raw")
		left, before := faults, time.Duration(0)
		b.read = func(objectstore.Location) error {
			if left == 0 {
				return nil
			}
			left--
			return away("open")
		}
		for !b.job(id).Status.Final() {
			again, err := b.imp.Work(t.Context(), id)
			if err != nil || again < before && !b.job(id).Status.Final() {
				t.Fatalf("again in %v after %v, %v", again, before, err)
			}
			before = again
		}
		job, want := b.job(id), ims.JobSuccess
		if faults == 8 {
			want = ims.JobFail
		}
		if job.Status != want || want == ims.JobFail && job.ErrorCode != ims.CodeInternal {
			t.Errorf("%d faults: %s %s %q", faults, job.Status, job.ErrorCode, job.FailReason)
		}
	}
}

// TestToldToStop: a worker that is told to stop gives its lease back, so that the next
// one need not wait, and has failed nothing.
func TestToldToStop(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.raw("d.raw", disk(1))
	id := b.accepted("d.raw")
	ctx, stop := context.WithCancel(t.Context())
	b.adopt = func(ctx context.Context, _ objectstore.ObjectInfo, _ error) (objectstore.ObjectInfo, error) {
		stop()
		<-ctx.Done()
		return objectstore.ObjectInfo{}, ctx.Err()
	}
	if _, err := b.imp.Work(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("the worker says %v", err)
	}
	b.adopt = nil
	if job := b.ended(id); job.Status != ims.JobSuccess || job.Attempt != 2 || job.Faults != 0 {
		t.Errorf("the next worker: %+v", job)
	}
}
