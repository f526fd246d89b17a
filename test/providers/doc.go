// Package providers tests quickims with terraform-provider-huaweicloud: its image
// resources and data sources run in this process and are asked over Terraform's plugin
// protocol, as Terraform asks them. It is a module of its own, so that the product does
// not depend on the provider.
package providers
