package buckets_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
)

const (
	ada = "a0000000000000000000000000000001"
	bob = "b0000000000000000000000000000002"
)

// world is a folder of buckets with a catalog.
type world struct {
	db     *database.DB
	folder string
	rows   *catalog.Catalog
}

// keeper makes another keeper of the same buckets, as another process does.
func (w world) keeper() *buckets.Keeper { return buckets.New(w.rows, w.folder) }

func (w world) there(t *testing.T, bucket string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(w.folder, bucket))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func onBoth(t *testing.T, f func(t *testing.T, w world)) {
	t.Helper()
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := world{db: db, folder: t.TempDir(), rows: catalog.New(db, catalog.Options{})}
		f(t, w)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func wantOwner(t *testing.T, k *buckets.Keeper, bucket, want string) {
	t.Helper()
	owner, err := k.Owner(t.Context(), bucket)
	if want == "" {
		wantError(t, err, buckets.ErrNotFound)
	} else if err != nil || owner != want {
		t.Errorf("%s belongs to %q (%v), want %q", bucket, owner, err, want)
	}
}

func TestMakeAndRemove(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ctx, k := t.Context(), w.keeper()
		must(t, k.Make(ctx, "disks", ada))
		wantOwner(t, k, "disks", ada)
		wantError(t, k.Make(ctx, "disks", ada), buckets.ErrExists)
		wantError(t, k.Make(ctx, "disks", bob), buckets.ErrTaken)
		wantError(t, k.Remove(ctx, "disks", bob), buckets.ErrNotFound)
		file := filepath.Join(w.folder, "disks", "object")
		must(t, os.WriteFile(file, nil, 0o600))
		wantError(t, k.Remove(ctx, "disks", ada), buckets.ErrNotEmpty)
		wantOwner(t, k, "disks", ada)
		must(t, os.Remove(file))
		must(t, os.MkdirAll(filepath.Join(w.folder, "disks", ".sgwtmp", "multipart"), 0o700))
		must(t, k.Remove(ctx, "disks", ada))
		wantError(t, k.Remove(ctx, "disks", ada), buckets.ErrNotFound)
		must(t, k.Make(ctx, "disks", bob)) // the name is free
		for _, name := range []string{"", "..", "../out", "A", "a", ".hidden"} {
			wantError(t, k.Make(ctx, name, ada), buckets.ErrBadName)
		}
		must(t, os.Symlink(t.TempDir(), filepath.Join(w.folder, "link")))
		wantError(t, k.Make(ctx, "link", ada), buckets.ErrTaken)
	})
}

// TestFolderMadeByHand: it is nobody's until the operator gives it away.
func TestFolderMadeByHand(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ctx, k := t.Context(), w.keeper()
		must(t, os.Mkdir(filepath.Join(w.folder, "by-hand"), 0o700))
		wantOwner(t, k, "by-hand", "")
		wantError(t, k.Make(ctx, "by-hand", ada), buckets.ErrTaken)
		wantError(t, k.Remove(ctx, "by-hand", ada), buckets.ErrNotFound)
		if made, err := k.Give(ctx, "by-hand", ada, false); made || err != nil {
			t.Errorf("given away: made %v, %v", made, err)
		}
		wantOwner(t, k, "by-hand", ada)
		_, err := k.Give(ctx, "by-hand", bob, false)
		wantError(t, err, buckets.ErrTaken)
		wantOwner(t, k, "by-hand", ada)
		_, err = k.Give(ctx, "by-hand", bob, true)
		must(t, err)
		wantOwner(t, k, "by-hand", bob)
		if made, err := k.Give(ctx, "new", ada, false); !made || err != nil || !w.there(t, "new") {
			t.Errorf("a bucket without a folder: made %v, %v", made, err)
		}
		must(t, os.Symlink(w.folder, filepath.Join(w.folder, "linked")))
		_, err = k.Give(ctx, "linked", ada, true) // no force makes a bucket of it
		wantError(t, err, buckets.ErrBadName)
		must(t, os.Mkdir(filepath.Join(w.folder, "another"), 0o700))
		list, err := k.List(ctx)
		must(t, err)
		if want := []buckets.Bucket{{"another", ""}, {"by-hand", bob}, {"new", ada}}; !slices.Equal(list, want) {
			t.Errorf("list %v, want %v", list, want)
		}
	})
}

// TestMadeByRoot: what the operator's command makes is the service's to write to.
func TestMadeByRoot(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		want := os.Geteuid()
		if want == 0 {
			want = 65534
			must(t, os.Chown(w.folder, want, want))
		}
		_, err := w.keeper().Give(t.Context(), "new", ada, false)
		must(t, err)
		for _, name := range []string{"new", buckets.LockFile} {
			info, err := os.Lstat(filepath.Join(w.folder, name))
			must(t, err)
			if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != want {
				t.Errorf("%s is user %d's, want %d", name, st.Uid, want)
			}
		}
	})
}

// TestTogether: whatever is made, removed and given away at once, by several keepers, no
// folder is left that belongs to nobody, and no row without a folder.
func TestTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ctx := t.Context()
		for range 20 {
			var wg sync.WaitGroup
			begin := make(chan struct{})
			for _, project := range []string{ada, bob, ada, bob} {
				k := w.keeper()
				wg.Go(func() {
					<-begin
					for range 3 {
						if err := k.Make(ctx, "race", project); err != nil && !errors.Is(err, buckets.ErrExists) && !errors.Is(err, buckets.ErrTaken) {
							t.Error(err)
						}
						if err := k.Remove(ctx, "race", project); err != nil && !errors.Is(err, buckets.ErrNotFound) {
							t.Error(err)
						}
					}
				})
			}
			close(begin)
			wg.Wait()
			k := w.keeper()
			if _, err := k.Owner(ctx, "race"); (err == nil) != w.there(t, "race") {
				t.Fatalf("folder there: %v, owner: %v", w.there(t, "race"), err)
			}
		}
	})
}

// TestHold: while somebody puts an object into a bucket, it is not removed; whoever comes
// when it has gone is told so.
func TestHold(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ctx, k := t.Context(), w.keeper()
		must(t, k.Make(ctx, "disks", ada))
		_, err := k.Hold(ctx, "disks", bob)
		wantError(t, err, buckets.ErrNotFound)
		first, err := k.Hold(ctx, "disks", ada)
		must(t, err)
		second, err := w.keeper().Hold(ctx, "disks", ada)
		must(t, err)
		first()
		soon, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		wantError(t, w.keeper().Remove(soon, "disks", ada), buckets.ErrBusy)
		must(t, k.Make(ctx, "others", bob)) // nobody waits for another bucket
		removed := make(chan error, 1)
		go func() { removed <- w.keeper().Remove(ctx, "disks", ada) }()
		second()
		must(t, <-removed)
		_, err = k.Hold(ctx, "disks", ada)
		wantError(t, err, buckets.ErrNotFound)
	})
}

// TestLeftByACrash: a row whose folder was never made, or was removed already, keeps the
// name for its project, which can go on with it either way.
func TestLeftByACrash(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ctx, k := t.Context(), w.keeper()
		for _, name := range []string{"begun", "removed"} {
			must(t, w.rows.ClaimBucket(ctx, name, ada))
			wantError(t, k.Make(ctx, name, bob), buckets.ErrTaken)
		}
		must(t, k.Make(ctx, "begun", ada))
		if !w.there(t, "begun") {
			t.Error("no folder")
		}
		must(t, k.Remove(ctx, "removed", ada))
		must(t, k.Make(ctx, "removed", bob))
	})
}

// TestAdoptOnce: the folders of an older installation go to its first project, once.
func TestAdoptOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ctx, k := t.Context(), w.keeper()
		must(t, k.Make(ctx, "bobs", bob))
		must(t, os.Mkdir(filepath.Join(w.folder, "old"), 0o700))
		adopt := func() int {
			t.Helper()
			names, err := k.Folders()
			must(t, err)
			n, err := w.rows.AdoptBuckets(ctx, names, ada)
			must(t, err)
			return n
		}
		if n := adopt(); n != 0 {
			t.Errorf("a new installation adopts %d folders", n)
		}
		wantOwner(t, k, "old", "")
		// What the migration writes where there was a first project.
		_, err := w.db.ExecContext(ctx, "INSERT INTO unowned_buckets (id) VALUES (1)")
		must(t, err)
		var wg sync.WaitGroup
		total := make([]int, 3)
		for i := range total { // processes that start together
			wg.Go(func() { total[i] = adopt() })
		}
		wg.Wait()
		if n := total[0] + total[1] + total[2]; n != 1 {
			t.Errorf("adopted %d folders, want 1", n)
		}
		wantOwner(t, k, "old", ada)
		wantOwner(t, k, "bobs", bob)
		must(t, os.Mkdir(filepath.Join(w.folder, "later"), 0o700))
		if n := adopt(); n != 0 {
			t.Errorf("the second time it adopts %d folders", n)
		}
		wantOwner(t, k, "later", "")
	})
}
