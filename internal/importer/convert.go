package importer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"

	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/create"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// Disk is an image's disk, read through the read path.
type Disk interface {
	io.ReaderAt
	io.Closer
	// Size is in bytes.
	Size() int64
	// Extents are the disk's extents in a range, in order.
	Extents(off, n int64) iter.Seq[diskformat.Extent]
}

// convertWrite is how much of a converted file is counted and sent at once, in bytes.
const convertWrite = 1 << 20

// exportConverted writes the disk of an image as a file of another format, in sequence, so
// that of the file nothing but what is on its way is in memory. It begins at the front in
// each attempt. One export is converted at a time: quick imports have the other workers.
func (i *Importer) exportConverted(ctx context.Context, job *ims.Job, img ims.Image) error {
	select {
	case i.convert <- struct{}{}:
		defer func() { <-i.convert }()
	default:
		return errBusy
	}
	format, err := create.Find(job.Source.Format)
	if err != nil {
		return err
	}
	up, err := i.opts.Allowance.Begin(ctx, job.ProjectID, 0)
	if err != nil {
		return noRoom(err)
	}
	stored := false
	defer func() { up.End(stored) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	disk, err := i.opts.OpenDisk(ctx, img)
	if err != nil {
		return fmt.Errorf("open image %s: %w", img.ID, err)
	}
	defer disk.Close()
	r, w := io.Pipe()
	done := make(chan struct{})
	var failed error // of the conversion, once it is done
	go func() {
		defer close(done)
		failed = i.writeConverted(ctx, job, disk, format, up, w)
		w.CloseWithError(failed)
	}()
	to := objectstore.Location{Bucket: job.Source.Bucket, Key: job.Source.Key}
	err = i.store.ExportStream(ctx, r, to, i.exportOptions(job, to))
	cancel()
	r.CloseWithError(errStopped)
	<-done
	switch {
	case err == nil:
		stored = true
		return faultpoint.Hit(faultpoint.ExportDone)
	case failed != nil && errors.Is(err, failed) && ims.CodeOf(failed) != "":
		return failed
	}
	return notExported(to, err)
}

// errStopped says that nobody wants the rest of a conversion.
var errStopped = errors.New("the export has ended")

// writeConverted writes the file. Before its end the right to the bucket is looked at
// once more, since a conversion takes its time.
func (i *Importer) writeConverted(ctx context.Context, job *ims.Job, disk Disk, format create.Format, up *allowance.Upload, w io.Writer) error {
	buffered := bufio.NewWriterSize(growing{up, w}, convertWrite)
	_, err := format.Write(ctx, buffered, disk, disk.Size(), create.Options{
		Name: path.Base(job.Source.Key),
		CopyOptions: sparse.CopyOptions{
			Concurrency: 1,
			Data: func(yield func(diskformat.Extent, error) bool) {
				for e := range disk.Extents(0, disk.Size()) {
					if e.Data && !yield(e, nil) {
						return
					}
				}
			},
			Progress: i.reportProgress(ctx, job),
		},
	})
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = faultpoint.Hit(faultpoint.ExportConverted)
	}
	if err == nil {
		err = i.bucketUsable(ctx, job.ProjectID, job.Source.Bucket, i.opts.MayWrite)
	}
	return err
}

// growing counts bytes before they are written.
type growing struct {
	up *allowance.Upload
	io.Writer
}

func (g growing) Write(p []byte) (int, error) {
	if err := g.up.Grow(int64(len(p))); err != nil {
		return 0, noRoom(err)
	}
	return g.Writer.Write(p)
}
