// Package clients tests quickims with the clients that its users have: their real
// signers against our verification, and their calls against a running server. It is
// a module of its own, so that the product does not depend on them.
package clients
