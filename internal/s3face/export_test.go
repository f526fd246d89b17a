package s3face

// WithoutXattr returns the configuration for a file system without extended
// attributes.
func WithoutXattr(c Config) Config {
	c.noXattr = true
	return c
}
