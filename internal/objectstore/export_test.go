package objectstore

// ForceCopy makes the directory store behave as on a file system that can
// neither clone nor link.
func (d *Dir) ForceCopy() { d.noLink = true }
