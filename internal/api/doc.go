// Package api is the HTTP edge: one table of routes, strict decoding of what comes
// in, the wire types of what goes out, and the only function that writes an error.
// It knows neither stores, disk formats nor SQL; what it needs of them it names as
// small interfaces that the caller of New supplies.
//
// A request passes, in this order: request id and log → route → credentials → the
// project in the path → the right → decoding → validation. The first that refuses
// answers, so nobody without credentials learns what a valid body is, and nobody
// without the right learns what exists.
package api
