package ownership

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// TestEmptyDatabaseOnAUsedArea: a second service with a database of its own on the
// image area of the first.
func TestEmptyDatabaseOnAUsedArea(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	first := harness.Start(t, s.options(""))
	image := s.importDisk(t, first, "kept")
	before, dir := s.objects(t), t.TempDir()
	for range 2 { // the second time, too: the first leaves nothing
		log := harness.Refused(t, s.on(dir, ""))
		wantRefusal(t, log, 2, "belongs to installation", "--database", "knows no images")
		same(t, dir, map[string]string{})
	}
	s.unchanged(t, before)
	first.CheckBytes(t, image, s.disk)
	s.importDisk(t, first, "another")
}

// TestRestoredBackup: an older database beside the one in use, stopped or not.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s := newStore(t)
		first := harness.Start(t, s.options(""))
		s.importDisk(t, first, "old")
		first.Stop(t)
		backup := t.TempDir()
		copyFiles(t, first.Dir, backup, state...)
		first.Restart(t, "")
		image := s.importDisk(t, first, "new")
		restored(t, s, first, image, s.on(backup, ""))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		database := harness.Postgres(t)
		s := newStore(t)
		first := harness.Start(t, s.with(database))
		s.importDisk(t, first, "old")
		first.Stop(t)
		backup := harness.CopyPostgres(t, database)
		first.Restart(t, "")
		image := s.importDisk(t, first, "new")
		dir := t.TempDir()
		copyFiles(t, first.Dir, dir, "seal.key", "credentials.env")
		replica := s.with(backup)
		replica.Dir = dir
		restored(t, s, first, image, replica)
	})
}

func restored(t *testing.T, s *store, first *harness.Server, image string, backup harness.Options) {
	t.Helper()
	before, files := s.objects(t), contents(t, backup.Dir)
	log := harness.Refused(t, backup)
	wantRefusal(t, log, 1, "older than the area", "backup", "generation")
	if backup.Database == "" {
		delete(files, "quickims.db") // opening it may fold its log into it
		delete(files, "quickims.db-wal")
		files["quickims.db"] = contents(t, backup.Dir)["quickims.db"]
	}
	same(t, backup.Dir, files)
	s.unchanged(t, before)
	first.CheckBytes(t, image, s.disk)
	first.Stop(t)
	wantRefusal(t, harness.Refused(t, backup), 1, "older than the area")
	s.unchanged(t, before)
	first.Restart(t, "")
	first.CheckBytes(t, s.importDisk(t, first, "newest"), s.disk)
}

// TestReplicaWithoutDatabase: a replica's data folder, and no --database.
func TestReplicaWithoutDatabase(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	first := harness.Start(t, s.with(harness.Postgres(t)))
	image := s.importDisk(t, first, "kept")
	before, dir := s.objects(t), t.TempDir()
	copyFiles(t, first.Dir, dir, state...)
	files := contents(t, dir)
	wantRefusal(t, harness.Refused(t, s.on(dir, "")), 2, "seal.key", "--database")
	same(t, dir, files)
	if err := os.Remove(filepath.Join(dir, "credentials.env")); err != nil { // as operate.md allows
		t.Fatal(err)
	}
	wantRefusal(t, harness.Refused(t, s.on(dir, "")), 2, "seal.key", "--database")
	s.unchanged(t, before)
	first.CheckBytes(t, image, s.disk)
}

// TestLostDatabase: the data folder of a directory store whose quickims.db is gone, with
// each of the files that tell whose it is.
func TestLostDatabase(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string][]string{
		"all else is there": nil, "with images alone": {"seal.key", "credentials.env"}, "without the mark": {"images/.quickims-owner", "seal.key", "credentials.env"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, harness.Options{})
			disk := harness.Disk(7, 3)
			s.PutFile(t, "disks", "disk.raw", disk)
			s.PutFile(t, "disks", "disk.mf", []byte("of another tool"))
			image := s.Import(t, harness.Request("kept", "disks:disk.raw"))
			s.Stop(t)
			aside := t.TempDir()
			copyFiles(t, s.Dir, aside, state...)
			for _, file := range append(gone, "quickims.db", "quickims.db-wal", "quickims.db-shm") {
				if err := os.Remove(filepath.Join(s.Dir, file)); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			files, images := contents(t, s.Dir), harness.Files(t, filepath.Join(s.Dir, "images"))
			ids := 2
			if len(gone) == 3 {
				ids = 1 // only the new database has one
			}
			wantRefusal(t, harness.Refused(t, harness.Options{Dir: s.Dir}), ids, "lost")
			same(t, s.Dir, files)
			if now := harness.Files(t, filepath.Join(s.Dir, "images")); len(now) != len(images) {
				t.Errorf("images/ holds %q and held %q", now, images)
			}
			copyFiles(t, aside, s.Dir, state...) // the operator restores what was lost
			s.Restart(t, "")
			s.CheckBytes(t, image, disk)
		})
	}
}

// TestAnotherArea: a database with images, and a setting that leads elsewhere.
func TestAnotherArea(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	server := harness.Start(t, s.options("one/"))
	image := s.importDisk(t, server, "kept")
	other := harness.Start(t, s.options("two/"))
	theirs := s.importDisk(t, other, "theirs")
	server.Stop(t)
	before := s.objects(t)
	wantRefusal(t, harness.Refused(t, s.on(server.Dir, "two/")), 2, "1 images of its own")
	wantRefusal(t, harness.Refused(t, s.on(server.Dir, "three/")), 1, "no owner mark", "it holds 0")
	s.unchanged(t, before)
	server.Restart(t, "")
	server.CheckBytes(t, image, s.disk)
	other.CheckBytes(t, theirs, s.disk)
	// Each removes its own alone.
	if a := server.Do(t, "DELETE", "/v2/images/"+image, nil); a.Status != 204 {
		t.Fatalf("delete: %d: %s", a.Status, a.Body)
	}
	harness.Eventually(t, "its bytes are gone", func() bool { return len(s.objects(t)) == 1 })
	other.CheckBytes(t, theirs, s.disk)
	// An area above both is free, too: what lies in theirs is no image of its own.
	harness.Start(t, s.options(""))
}
