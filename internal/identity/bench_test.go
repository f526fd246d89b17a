package identity

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/quickims/quickims/internal/database"
)

func BenchmarkAuthenticate(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchmarkAuthenticate(b, "sqlite:"+b.TempDir()+"/bench.db") })
	b.Run("postgres", func(b *testing.B) {
		url := os.Getenv("QUICKIMS_BENCH_POSTGRES")
		if url == "" {
			b.Skip("no PostgreSQL: set QUICKIMS_BENCH_POSTGRES to the URL of an empty database")
		}
		benchmarkAuthenticate(b, url)
	})
}

func benchmarkAuthenticate(b *testing.B, url string) {
	db := must(database.Open(b.Context(), url, database.Options{}))
	defer db.Close()
	check(b, db.Migrate(b.Context()))
	w := newWorld(b, db)
	token := w.login(b, Scope{ProjectID: "p1"})
	byToken := httptest.NewRequest("GET", "/v2/cloudimages?limit=1", nil)
	byToken.Header.Set("X-Auth-Token", token)
	for name, r := range map[string]*http.Request{"token": byToken, "signature": w.signed(testSeed.AccessKey, testSeed.SecretKey)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.Authenticate(b.Context(), r, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("password", func(b *testing.B) {
		h := must(newHasher(1, DefaultPasswordCost, rand.Reader))
		for b.Loop() {
			if ok, err := h.matches("", "x"); ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}
