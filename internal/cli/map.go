package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// MapCmd lists the extents of a disk.
type MapCmd struct {
	inputFlags
	File string `arg:"" name:"file" help:"Disk file of any format that is read, or a block device."`
}

// Help shows the command's use.
func (MapCmd) Help() string {
	return `An extent is a range of the disk that is data or a hole; a hole reads as zeros. With --json the form is that of "qemu-img map --output=json": start, length, depth, present, zero, data, and offset where the data lies in the file as it is.

Examples:

    quickims map disk.qcow2
    quickims map --json disk.raw
`
}

// mapEntry is an extent in the form of qemu-img map. Bytes.
type mapEntry struct {
	Start  int64 `json:"start"`
	Length int64 `json:"length"`
	// Depth is 0: which of several files data comes from is not told apart.
	Depth   int  `json:"depth"`
	Present bool `json:"present"`
	Zero    bool `json:"zero"`
	Data    bool `json:"data"`
	// Offset is where the extent lies in the file, of RAW alone.
	Offset *int64 `json:"offset,omitempty"`
	// FrameSize is how many bytes of the disk a compressed frame of the extent holds, of
	// ZVHD2's data alone.
	FrameSize int64 `json:"frame_size,omitempty"`
}

// Run lists. What it prints does not wait for its end: a disk may have millions of
// extents.
func (c *MapCmd) Run(ctx context.Context, s *session) error {
	src, err := c.openDisk(c.File)
	if err != nil {
		return err
	}
	defer src.Close()
	w := bufio.NewWriter(s.Stdout)
	if s.json {
		err = src.printJSON(ctx, w)
	} else {
		err = src.printTable(ctx, w)
	}
	if flushed := w.Flush(); err == nil {
		err = flushed
	}
	if err != nil {
		return fmt.Errorf("map %s: %w", c.File, interrupted(ctx, err))
	}
	return nil
}

// entry is an extent with what is known of it.
func (d *diskFile) entry(e diskformat.Extent) mapEntry {
	m := mapEntry{Start: e.Offset, Length: e.Length, Present: e.Data, Zero: !e.Data, Data: e.Data}
	if d.Format == diskformat.Raw {
		m.Present, m.Offset = true, &m.Start // a hole of a file is a place in it too
	}
	if disk, ok := d.Image.(*zvhd2.File); ok && e.Data {
		m.FrameSize = frameSize(disk)
	}
	return m
}

func (d *diskFile) printJSON(ctx context.Context, w io.Writer) error {
	before := "["
	for e, err := range d.Map(ctx) {
		if err != nil {
			return err
		}
		line, err := json.Marshal(d.entry(e))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%s", before, line); err != nil {
			return err
		}
		before = ",\n"
	}
	if before == "[" {
		_, err := fmt.Fprintln(w, "[]")
		return err
	}
	_, err := fmt.Fprintln(w, "]")
	return err
}

func (d *diskFile) printTable(ctx context.Context, w io.Writer) error {
	const line = "%16s  %16s  %-10s  %s\n"
	if _, err := fmt.Fprintf(w, line, "Start", "Length", "", "Kind"); err != nil {
		return err
	}
	for e, err := range d.Map(ctx) {
		if err != nil {
			return err
		}
		kind := "hole"
		if e.Data {
			kind = "data"
			if disk, ok := d.Image.(*zvhd2.File); ok {
				kind += ", frames of " + size(frameSize(disk))
			}
		}
		if _, err := fmt.Fprintf(w, line, fmt.Sprint(e.Offset), fmt.Sprint(e.Length), size(e.Length), kind); err != nil {
			return err
		}
	}
	return nil
}
