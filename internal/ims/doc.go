// Package ims is the vocabulary of the image service: images, jobs, tags,
// projects, the states they pass through, the rules a request must keep and
// the error codes a client reads. It does no I/O and knows neither JSON nor SQL.
//
// Terms:
//
//   - An image is a disk that a machine can boot from or attach: metadata, and
//     data that lies in the image area of the object store.
//   - A source is the object in a bucket that an import starts from. It is
//     pinned by its size, ETag and version when the import begins.
//   - A job is the asynchronous work that makes an image. Its attempt number is
//     the fence: only the worker that holds the newest attempt may write.
//   - A project owns images, jobs and buckets; a domain holds projects.
//   - An attachment is the right to read an image's disk as a block device, for a
//     limited time, with a token.
//   - An enterprise project groups images for billing and rights inside a domain;
//     "0" is the one that always exists.
package ims
