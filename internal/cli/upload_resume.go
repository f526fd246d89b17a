package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync/atomic"

	"github.com/quickims/quickims/internal/client"
)

// fileUpload is an upload of a large file, in parts, that goes on with an earlier one
// if it can.
type fileUpload struct {
	s     *session
	store *client.Store
	f     *source
	to    objectName

	state *uploadState
	up    *client.FileUpload
}

// maxCandidates is how many unfinished uploads are compared with the file when there
// is no state that says which is ours.
const maxCandidates = 8

func (u *fileUpload) run(ctx context.Context) (client.Object, error) {
	u.state = u.s.newState(u.store, u.f, u.to)
	u.s.dropOutdated(ctx, u.store, u.state)
	object, done, err := u.find(ctx)
	if err != nil || done {
		return object, err
	}
	if u.up == nil {
		if u.up, err = u.store.BeginUpload(ctx, u.to.bucket, u.to.key, u.f.File, u.f.size); err != nil {
			return client.Object{}, err
		}
	}
	u.state.UploadID = u.up.ID()
	u.state.save()
	object, err = u.send(ctx)
	err = overtaken(err)
	switch {
	case err == nil:
		u.state.forget()
	case goesOn(ctx, err):
		u.s.note("%s of %s are in the store: the same command goes on from there; with --restart it begins anew", size(u.up.There()), size(u.f.size))
	default:
		u.giveUp(ctx, u.up.Abort)
	}
	return object, err
}

// giveUp removes the parts of an upload that is of no use any more.
func (u *fileUpload) giveUp(ctx context.Context, abort func(context.Context) error) {
	u.state.forget()
	if err := abort(ctx); err != nil {
		u.s.note("parts of no use are left in the store, upload --restart removes them: %v", err)
	}
}

// find looks for an earlier upload. If that came to its end and its answer alone was
// lost, all is done.
func (u *fileUpload) find(ctx context.Context) (object client.Object, done bool, err error) {
	earlier := u.state.earlier()
	if earlier == nil {
		return object, false, u.search(ctx)
	}
	abandon := func(ctx context.Context) error {
		return u.store.Abandon(ctx, u.to.bucket, u.to.key, earlier.UploadID)
	}
	switch {
	case earlier.Converted:
		u.giveUp(ctx, abandon)
		return object, false, nil
	case !earlier.sameFile(u.state):
		if earlier.File == u.state.File {
			u.s.note("%s was changed since the upload that was cut: beginning anew", u.f.path)
		} else {
			u.s.note("an upload of %s to %s was cut before; this is another file: beginning anew", earlier.File, u.to)
		}
		u.giveUp(ctx, abandon)
		return object, false, nil
	}
	u.up, err = u.store.ResumeUpload(ctx, u.to.bucket, u.to.key, earlier.UploadID, u.f.File, u.f.size)
	if errors.Is(err, client.ErrNoUpload) {
		u.state.forget()
		object, err := u.store.Stat(ctx, u.to.bucket, u.to.key)
		if err == nil && earlier.ETag != "" && object.ETag == earlier.ETag && object.Size == u.f.size {
			u.s.note("all of %s had arrived before the upload was cut", u.f.path)
			return object, true, u.f.unchanged()
		}
		u.s.note("the store no longer has the parts of the upload that was cut: beginning anew")
		return client.Object{}, false, nil
	}
	return object, false, err
}

// search looks in the store for an unfinished upload of the file. The store may not
// tell, which is no fault.
func (u *fileUpload) search(ctx context.Context) error {
	ids, err := u.store.Unfinished(ctx, u.to.bucket, u.to.key)
	if _, answered := errors.AsType[*client.Error](err); answered {
		return nil
	}
	if err != nil {
		return err
	}
	for _, id := range ids[:min(len(ids), maxCandidates)] {
		up, err := u.store.ResumeUpload(ctx, u.to.bucket, u.to.key, id, u.f.File, u.f.size)
		if errors.Is(err, client.ErrNoUpload) {
			continue
		}
		if err != nil {
			return err
		}
		if likely, err := up.Likely(ctx); err != nil {
			return err
		} else if likely {
			u.up = up
			return nil
		}
	}
	if len(ids) > 0 {
		u.s.note("%d unfinished uploads to %s, of other content, are in the store; --restart removes them", len(ids), u.to)
	}
	return nil
}

// send sends what is missing and makes the object of it.
func (u *fileUpload) send(ctx context.Context) (client.Object, error) {
	if there := u.up.There(); there > 0 {
		m := u.s.bytesMeter("compare", there)
		differ, err := u.up.Compare(ctx, m.add)
		m.close(err)
		if err != nil {
			return client.Object{}, err
		}
		if differ > 0 {
			u.s.note("%s of what is in the store are not what the file has, and are sent again", size(differ))
		}
		u.s.note("going on with the upload that was cut: %s of %s are in the store", size(u.up.There()), size(u.f.size))
	}
	if left := u.f.size - u.up.There(); left > 0 {
		m := u.s.bytesMeter("upload", left)
		err := u.sendWatched(ctx, m.add)
		m.close(err)
		if err != nil {
			return client.Object{}, err
		}
	}
	if err := u.f.unchanged(); err != nil {
		return client.Object{}, &changedError{err}
	}
	u.state.ETag = u.up.ETag()
	u.state.save()
	return u.up.Commit(ctx)
}

// overtaken says it of an upload that is in the store no more, though it was there
// when it began: another one to the same object came first, or somebody removed it.
func overtaken(err error) error {
	if e, ok := errors.AsType[*client.Error](err); ok && e.Code == "NoSuchUpload" {
		return fmt.Errorf("another upload to the same object came first, or its parts were removed: %w", err)
	}
	return err
}

// sendWatched sends what is missing, and stops soon after the file was written to:
// what is sent then is of no use.
func (u *fileUpload) sendWatched(ctx context.Context, add func(int)) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	const every = 64 << 20 // bytes between two looks
	var since atomic.Int64
	err := u.up.Send(ctx, func(n int) {
		add(n)
		if since.Add(int64(n)) < every {
			return
		}
		since.Store(0)
		if err := u.f.unchanged(); err != nil {
			stop(&changedError{err})
		}
	})
	if changed, ok := errors.AsType[*changedError](context.Cause(ctx)); ok {
		return changed
	}
	return err
}

// changedError says that the file was written to during its upload.
type changedError struct{ error }

func (e *changedError) Unwrap() error { return e.error }

// goesOn reports whether an upload that ended with err can be gone on with later:
// after ^C, when the store can't be reached or is in trouble, or when the keys were
// wrong; but not when the file or what arrived is at fault.
func goesOn(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	if _, changed := errors.AsType[*changedError](err); changed || errors.Is(err, client.ErrDamaged) {
		return false
	}
	if _, unreadable := errors.AsType[*fs.PathError](err); unreadable {
		return false
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		switch e.Status {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
			return true
		}
		return e.Status >= http.StatusInternalServerError
	}
	return true
}
