// Package gophercloud tests quickims with gophercloud's image service, every call of it,
// and with the image resources of terraform-provider-openstack, which are built on it. It
// is a module of its own, so that the product does not depend on them. go.mod has the
// newest release, oldest.mod the first of the second version:
// go test -modfile=oldest.mod .
package gophercloud
