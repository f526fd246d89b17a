package database_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/quickims/quickims/internal/database"
)

// TestMigrateAttempts: an upgrade keeps what is known of bytes in the image area: what
// was to be removed still is, attempts of running jobs are recorded, and those that
// were fenced are to be removed.
func TestMigrateAttempts(t *testing.T) {
	t.Parallel()
	const (
		running = "00000000-0000-4000-8000-00000000000a"
		ended   = "00000000-0000-4000-8000-00000000000b"
	)
	runEmpty(t, func(t *testing.T, url string) {
		db := openFor(t, url, database.Options{})
		if err := db.MigrateTo(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		exec := func(query string, args ...any) {
			t.Helper()
			if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
				t.Fatal(err)
			}
		}
		for image, status := range map[string]string{running: "saving", ended: "killed"} {
			exec(`INSERT INTO images (id, project_id, enterprise_project_id, name, description, status, env, os_version, os_type, os_bit, platform,
				architecture, firmware, license_type, min_disk_gib, min_ram_mib, max_ram_mib, protected, attributes, source_url, file_size,
				data_key, data_etag, data_format, data_size, data_virtual_size, data_bitmap_key, data_bitmap_etag, data_bitmap_size, created_at, updated_at)
				VALUES ($1, 'p', '', '', '', $2, '', '', '', '', '', '', '', '', 0, 0, '', FALSE, '{}', '', 0, '', '', '', 0, 0, '', '', 0, 1, 1)`, image, status)
		}
		job := `INSERT INTO jobs (id, project_id, type, status, step, percent, attempt, faults, image_id, image_name, source, error_code, fail_reason, begin_time, end_time, free_since)
			VALUES ($1, 'p', '', $2, '', 0, 3, 0, $3, '', '{}', '', '', 50, $4, 0)`
		exec(job, "j1", "RUNNING", running, nil)
		exec(job, "j2", "FAIL", ended, 60)
		exec("INSERT INTO garbage (prefix, found_at) VALUES ($1, 70)", ended+"/2/")
		exec("INSERT INTO garbage (prefix, found_at) VALUES ($1, 71)", running+"/1/")
		if err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		rows, err := db.QueryContext(t.Context(), "SELECT prefix, image_id, began_at, ended_at IS NOT NULL, looks FROM attempts ORDER BY prefix")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var got []string
		for rows.Next() {
			var prefix, image string
			var began, looks int64
			var over bool
			if err := rows.Scan(&prefix, &image, &began, &over, &looks); err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(prefix, " ", image, " ", began, " ", over, " ", looks))
		}
		want := []string{
			running + "/1/ " + running + " 50 true 0", running + "/2/ " + running + " 50 true 0", running + "/3/ " + running + " 50 false 0",
			ended + "/2/ " + ended + " 70 true 0",
		}
		if err := rows.Err(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("attempts\n%q (%v), want\n%q", got, err, want)
		}
	})
}
