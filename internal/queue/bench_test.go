package queue_test

import (
	"testing"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/queue"
)

func onEach(b *testing.B, f func(b *testing.B, db *database.DB)) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": databasetest.SQLite, "postgres": databasetest.Postgres} {
		b.Run(name, func(b *testing.B) {
			db, err := database.Open(b.Context(), url(b), database.Options{})
			must(b, err)
			b.Cleanup(func() { db.Close() })
			f(b, db)
		})
	}
}

// BenchmarkPickup measures from before the transaction that enqueues to the handler.
func BenchmarkPickup(b *testing.B) {
	onEach(b, func(b *testing.B, db *database.DB) {
		took := pickups(b, db, 40)
		ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
		b.ReportMetric(ms(took[len(took)/2]), "ms-median")
		b.ReportMetric(ms(took[len(took)-1]), "ms-worst")
	})
}

// BenchmarkAccept measures the transaction that takes an import in.
func BenchmarkAccept(b *testing.B) {
	onEach(b, func(b *testing.B, db *database.DB) {
		c := catalog.New(db, catalog.Options{})
		q := newQueue(b, db, nil, queue.Options{})
		for b.Loop() {
			img := ims.Image{ID: ims.NewImageID(), ProjectID: "p", EnterpriseProjectID: "0", Name: "x", Env: ims.EnvECS, SourceURL: "b:x.raw"}
			job := ims.Job{ID: ims.NewJobID(), ProjectID: "p", Type: ims.JobImportSystem, Step: ims.StepAccepted, ImageID: img.ID, ImageName: "x"}
			must(b, c.CreateImport(b.Context(), "d", img, job, ims.Limits{Images: 1 << 30, Imports: 1 << 30}, q.Enqueue))
		}
	})
}
