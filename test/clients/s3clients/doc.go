// Package s3clients runs the S3 clients that people have against a started quickims,
// over http and over https: programs and Python by the scripts in testdata, Go SDKs in
// this process. Each client goes through the same cases as far as it has them.
package s3clients
