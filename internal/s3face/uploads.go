package s3face

import (
	"cmp"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// uploadItem is an entry of a listing of uploads: an upload, or a prefix that the keys of
// several have in common.
type uploadItem struct {
	at     string // the key or the prefix
	id     string
	upload *files.Upload // nil for a prefix
}

// uploadPage keeps the first entries of a listing of uploads, which it is given in no
// order: one more than the limit, which tells whether there are more.
type uploadPage struct {
	limit int
	items []uploadItem
}

func (p *uploadPage) add(i uploadItem) {
	if p.items = append(p.items, i); len(p.items) > 2*p.limit+1024 {
		p.trim()
	}
}

func (p *uploadPage) trim() {
	slices.SortFunc(p.items, func(a, b uploadItem) int {
		return cmp.Or(strings.Compare(a.at, b.at), strings.Compare(a.id, b.id))
	})
	p.items = slices.CompactFunc(p.items, func(a, b uploadItem) bool { return a.at == b.at && a.id == b.id })
	if len(p.items) > p.limit+1 {
		clear(p.items[p.limit+1:])
		p.items = p.items[:p.limit+1]
	}
}

func listUploads(q *request) error {
	l, err := q.listing("max-uploads")
	if err != nil {
		return err
	}
	keyMarker, idMarker := q.query.Value("key-marker"), q.query.Value("upload-id-marker")
	out := wire.ListMultipartUploadsResult{
		Bucket: q.bucket, KeyMarker: l.text(keyMarker), UploadIDMarker: idMarker, Delimiter: l.text(l.delimiter), Prefix: l.text(l.prefix),
		MaxUploads: l.limit, EncodingType: l.encoding(),
	}
	if l.limit == 0 {
		return q.respond(out)
	}
	page := uploadPage{limit: l.limit}
	err = q.b.Uploads(q.ctx, func(u *files.Upload) {
		key := u.Info.Key
		if !strings.HasPrefix(key, l.prefix) || key < keyMarker || key == keyMarker && (idMarker == "" || u.ID <= idMarker) {
			return // the marker's upload may be gone
		}
		if l.delimiter != "" {
			if i := strings.Index(key[len(l.prefix):], l.delimiter); i >= 0 {
				common := key[:len(l.prefix)+i+len(l.delimiter)]
				if !strings.HasPrefix(keyMarker, common) {
					page.add(uploadItem{at: common})
				}
				return
			}
		}
		page.add(uploadItem{key, u.ID, u})
	})
	if err != nil {
		return err
	}
	page.trim()
	if out.IsTruncated = len(page.items) > l.limit; out.IsTruncated {
		page.items = page.items[:l.limit]
		last := page.items[l.limit-1]
		out.NextKeyMarker, out.NextUploadIDMarker = l.text(last.at), last.id
	}
	for _, i := range page.items {
		if i.upload == nil {
			out.CommonPrefixes = append(out.CommonPrefixes, wire.CommonPrefix{Prefix: l.text(i.at)})
			continue
		}
		u := i.upload.Info
		out.Upload = append(out.Upload, wire.Upload{
			Key: l.text(i.at), UploadID: i.id, Initiator: q.owner(), Owner: q.owner(), StorageClass: "STANDARD", Initiated: wire.Time(u.Created),
			ChecksumAlgorithm: string(u.Algorithm), ChecksumType: string(u.Type),
		})
	}
	return q.respond(out)
}
