// Package s3suite judges the S3 protocol that quickims speaks, request by request: each
// case says what is sent over the connection and what has to come back. It signs and
// frames by itself, so that no SDK hides a header, a code or a byte.
//
// The kinds of cases are those of Ceph's public s3-tests, without the ones for what
// quickims does not offer (docs/s3.md says what). To hold
// the suite itself against another server, set QUICKIMS_SUITE_S3 to
// http://ACCESSKEY:SECRETKEY@HOST:PORT/REGION; that server must be empty.
package s3suite
