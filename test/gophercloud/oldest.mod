module github.com/quickims/quickims/test/gophercloud

go 1.26.0

replace github.com/quickims/quickims => ../..

require (
	github.com/gophercloud/gophercloud/v2 v2.16.0
	github.com/quickims/quickims v0.0.0-00010101000000-000000000000
)

require (
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/pgx/v5 v5.12.0 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

// The product needs a newer one than is tested here.
replace github.com/gophercloud/gophercloud/v2 => github.com/gophercloud/gophercloud/v2 v2.0.0
