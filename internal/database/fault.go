package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrUnavailable says that the database can't do its work now: it is gone, locked by
// somebody else beyond the timeout, or its disk is full. The same request may go well
// later.
var ErrUnavailable = errors.New("the database is not available")

// Fault returns err, marked as ErrUnavailable when it is the database's own trouble
// and not the statement's. What DB's and Tx's methods return is marked already;
// Rows.Err and what River or database/sql return is not.
func Fault(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) || !unavailable(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func unavailable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false // the caller's own doing
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff { // the primary code of an extended one
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
			sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM:
			return true
		case sqlite3.SQLITE_READONLY:
			// The file system was remounted or the file moved away. But a query that
			// writes on a reading connection is our mistake.
			return e.Code() != sqlite3.SQLITE_READONLY
		}
		return false
	}
	// Whatever the server says to who connects, it can't be worked with.
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return unavailableState(e.Code)
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, sql.ErrConnDone) || pgconn.SafeToRetry(err)
}

// unavailableState judges an SQLSTATE (PostgreSQL documentation, appendix A).
func unavailableState(code string) bool {
	if len(code) != 5 {
		return false
	}
	switch code[:2] {
	case "08", // connection exception
		"53", // insufficient resources; 53100 is a full disk, 53300 too many connections
		"58", // system error, such as an I/O error
		"28": // authorization: the password was changed under a running service
		return true
	}
	switch code {
	case "57P01", "57P02", "57P03", // shut down, crashed, starting
		"57P05", "25P03", // a session that idled too long was ended
		"25006",          // became a read-only standby
		"55P03",          // a lock was not to be had within lock_timeout
		"40001", "40P01", // given up in favour of another too many times
		"3D000": // the database itself is not there
		return true
	}
	return false
}

// givenUp reports whether the database rolled the transaction back in favour of
// another, so that the same one may go well at once.
func givenUp(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "40001" || e.Code == "40P01"
	}
	return false
}

// Duplicate reports whether err says that a row with the same key is there already.
// On PostgreSQL the transaction can then do nothing more.
func Duplicate(err error) bool {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "23505"
	}
	return false
}

// missingTable reports whether err says that a table is not there.
func missingTable(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "42P01"
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && strings.Contains(e.Error(), "no such table")
}
