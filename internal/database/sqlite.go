package database

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// openSQLite opens the file at path. One connection writes: SQLite has one writer at
// a time anyway, and waiting in database/sql's queue is fair, while waiting in
// SQLite's busy handler is not. It begins transactions with BEGIN IMMEDIATE, so that
// a lock is waited for at the beginning and never fails half-way. synchronous=FULL
// makes every commit durable before it returns.
func openSQLite(path string, opts Options) (*DB, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q is not absolute, it must be sqlite:/folder/file.db", path)
	}
	// The file holds secrets; SQLite gives its side files the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	common := url.Values{
		"_busy_timeout": {strconv.FormatInt(opts.LockTimeout.Milliseconds(), 10)},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"on"},
		"_dqs":          {"false"}, // "x" is an identifier, as on PostgreSQL
		"_defensive":    {"true"},
	}
	open := func(extra, value string) (*sql.DB, error) {
		common.Set(extra, value)
		defer common.Del(extra)
		dsn := url.URL{Scheme: "file", Path: path, RawQuery: common.Encode()}
		return sql.Open("sqlite", dsn.String())
	}
	writer, err := open("_txlock", "immediate")
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	reader, err := open("_query_only", "on")
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	reader.SetMaxOpenConns(opts.MaxConns)
	reader.SetMaxIdleConns(opts.MaxConns)
	return &DB{DB: reader, writer: writer, dialect: SQLite, where: path}, nil
}
