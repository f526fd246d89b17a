package s3face

import "time"

// WithFormTime returns the configuration with another time for a form up to its file.
func WithFormTime(c Config, d time.Duration) Config {
	c.formTime = d
	return c
}

// WithoutXattr returns the configuration for a file system without extended
// attributes.
func WithoutXattr(c Config) Config {
	c.noXattr = true
	return c
}
