package installation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// Mark is the owner mark of an image area.
type Mark struct {
	Installation string `json:"installation"`
	// Generation grows with each mark of the installation.
	Generation int64 `json:"generation"`
	// Nonce differs in any two marks. The database knows those of its own marks.
	Nonce     string    `json:"nonce"`
	WrittenAt time.Time `json:"written_at"`
	// TakenOver is when an operator last gave the area to the installation, zero if never.
	TakenOver time.Time `json:"taken_over,omitzero"`
	Note      string    `json:"note"`
}

const markNote = "quickims keeps images here. This object says whose they are. Do not change or delete it."

var markAt = objectstore.Location{Bucket: objectstore.ImageArea, Key: imagearea.MarkKey}

// readMark reads the area's mark and its bytes; nil and no error if there is none.
func readMark(ctx context.Context, store objectstore.Store) (*Mark, []byte, error) {
	data, err := objectstore.Load(ctx, store, markAt)
	if errors.Is(err, objectstore.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the owner mark of the image area: %w", err)
	}
	var m Mark
	if err := json.Unmarshal(data, &m); err != nil || !ims.ValidUUID(m.Installation) || m.Generation < 1 || m.Nonce == "" {
		return nil, data, fmt.Errorf("%w: the owner mark %s of the image area is damaged; restore it, or take the area over",
			ErrNotOwner, imagearea.MarkKey)
	}
	return &m, data, nil
}

func (m Mark) encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	return append(data, '\n'), err
}
