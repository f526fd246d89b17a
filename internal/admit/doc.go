// Package admit decides whom the service lets in, and with how much: connections,
// places and memory are divided between client addresses and projects, so that no
// client takes the service from the others.
//
// A stranger is a client that has shown no valid credentials on its connection. An
// address is an IPv4 address, or the /64 network that a single IPv6 host may have.
package admit
