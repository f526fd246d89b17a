// Package nbd serves read-only disks over the NBD protocol. It knows the protocol
// alone: what a name stands for and where bytes come from is asked through interfaces.
//
// Terms are the protocol's. A client connects and haggles over options (handshake);
// one of them names an export, a disk; from then on it sends requests, which are
// handled in parallel and answered as they finish (transmission). An answer is a
// simple reply, or chunks when the client asked for structured replies or extended
// headers. A hole is a range that reads as zeros and is stored nowhere.
//
// Names of exports are secrets: they are not listed and not logged. Whatever a
// stranger can send has a limit in size, number and time, and costs little memory
// until an export was named that exists. What goes wrong inside an export is an I/O
// error for the client and a line in the log.
package nbd
