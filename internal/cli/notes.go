package cli

import (
	"context"
	"slices"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/inspect"
)

// warningDoc is a warning as scripts read it. The same ID comes from the service too.
type warningDoc struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

type warningEvent struct {
	Event string `json:"event"`
	warningDoc
}

// warnings are what a command has warned of. Each is said once.
type warnings []warningDoc

// warn says what was not said before, and keeps it for the result.
func (said *warnings) warn(s *session, notes ...diskformat.Note) {
	for _, note := range notes {
		if said.has(note.ID) {
			continue
		}
		doc := warningDoc(note)
		*said = append(*said, doc)
		s.event(warningEvent{"warning", doc}, "%s %s", s.coloured(s.Stderr, yellow, "warning:"), note.Text)
	}
}

func (said warnings) has(id string) bool {
	return slices.ContainsFunc(said, func(w warningDoc) bool { return w.ID == id })
}

// fromJob says what the service noticed and the command did not.
func (said *warnings) fromJob(s *session, noticed []ims.Warning) {
	for _, w := range noticed {
		said.warn(s, diskformat.Note(w))
	}
}

// survey looks at an opened disk: its partition table, and what its readers assumed. It
// reads the file's tables to their end, since some of that shows there.
func (d *diskFile) survey(ctx context.Context) (diskformat.Hints, []diskformat.Note, error) {
	hints, notes, err := inspect.Disk(ctx, d, d.OrigSize, d.Disk.Format == diskformat.Raw)
	if err != nil {
		return hints, nil, err
	}
	if _, ok := d.Image.(diskformat.Noted); ok || d.Depth > 0 {
		for _, err := range d.Map(ctx) {
			if err != nil {
				return hints, nil, err
			}
		}
	}
	return hints, addNotes(notes, d.Notes()), nil
}

// addNotes adds the notes of kinds that are not there yet.
func addNotes(notes, more []diskformat.Note) []diskformat.Note {
	for _, note := range more {
		if !slices.ContainsFunc(notes, func(n diskformat.Note) bool { return n.ID == note.ID }) {
			notes = append(notes, note)
		}
	}
	return notes
}
