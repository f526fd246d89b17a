package database

import (
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// connectTimeout is how long a new connection may take unless the URL says otherwise.
const connectTimeout = 10 * time.Second

// openPostgres makes a pool for url. Parameters in the URL win over ours.
func openPostgres(url string, opts Options) (*DB, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		// The parser's error quotes the URL, less its password in the forms it knows.
		return nil, errors.New("the URL is not of the form postgres://user:password@host:port/database?sslmode=…")
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	defaults := map[string]string{
		"application_name": "quickims",
		"lock_timeout":     strconv.FormatInt(opts.LockTimeout.Milliseconds(), 10),
		// A process that stopped in the middle of a transaction must not hold its locks.
		"idle_in_transaction_session_timeout": "60000",
	}
	for name, value := range defaults {
		if _, set := config.RuntimeParams[name]; !set {
			config.RuntimeParams[name] = value
		}
	}
	pool := stdlib.OpenDB(*config)
	pool.SetMaxOpenConns(opts.MaxConns)
	pool.SetMaxIdleConns(opts.MaxConns)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	return &DB{DB: pool, writer: pool, dialect: Postgres, where: config.Host + "/" + config.Database}, nil
}
