package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// qcow2Header is a qcow2 file with a disk of 1 MiB without data, whose fields change
// sets.
func qcow2Header(change func(header []byte)) []byte {
	const cluster = 64 << 10
	header := make([]byte, 4*cluster)
	copy(header, "QFI\xfb")
	// version, cluster_bits, l1_size, refcount_table_clusters, refcount_order, header_length
	for at, v := range map[int]uint32{4: 3, 20: 16, 36: 1, 56: 1, 96: 4, 100: 104} {
		binary.BigEndian.PutUint32(header[at:], v)
	}
	// size, l1_table_offset, refcount_table_offset
	for at, v := range map[int]uint64{24: 1 << 20, 40: cluster, 48: 2 * cluster} {
		binary.BigEndian.PutUint64(header[at:], v)
	}
	change(header)
	return header
}

// TestInfoFailsForWhatIsNoDisk: whatever keeps a file from being opened as a disk, the
// status is that of a failure, and what is known is told.
func TestInfoFailsForWhatIsNoDisk(t *testing.T) {
	t.Parallel()
	vmdk := make([]byte, 1<<20)
	copy(vmdk, "KDMV\x01\x00\x00\x00\x03\x00\x00\x00")
	binary.LittleEndian.PutUint64(vmdk[12:], 1<<62) // capacity, in sectors
	copy(vmdk[73:], "\n \r\n")
	vhd := make([]byte, 600)
	copy(vhd[600-512:], "conectix")
	for name, test := range map[string]struct {
		content []byte
		format  string
		code    string // of the error
	}{
		"size.qcow2": {qcow2Header(func(h []byte) { binary.BigEndian.PutUint64(h[24:], 1<<63-1) }), "qcow2", "unsupported"},
		"backing.qcow2": {qcow2Header(func(h []byte) {
			binary.BigEndian.PutUint64(h[8:], 256) // backing_file_offset
			binary.BigEndian.PutUint32(h[16:], 8)  // backing_file_size
			copy(h[256:], "base.raw")
		}), "qcow2", "unsupported"},
		"corrupt.qcow2": {qcow2Header(func(h []byte) { binary.BigEndian.PutUint32(h[36:], 0) }), "qcow2", "corrupt"}, // l1_size
		"capacity.vmdk": {vmdk, "vmdk", "unsupported"},
		"short.vhd":     {vhd, "vhd", "corrupt"},
		"disk.raw.gz":   {append([]byte("\x1f\x8b\x08"), make([]byte, 1021)...), "gzip", "wrong_format"},
	} {
		path := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(path, test.content, 0o600))
		status, stdout, stderr := run(t, "info", path)
		if status != StatusFailed || !strings.Contains(stdout, "Quick import  no: it can't be opened as a disk\n") || !strings.HasPrefix(stderr, "quickims: ") {
			t.Errorf("%s: status %d, stdout %q, stderr %q", name, status, stdout, stderr)
		}
		status, stdout, stderr = run(t, "info", "--json", path)
		var doc infoDoc
		var fault struct{ Error errorDoc }
		if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
			t.Errorf("%s: stdout %q: %v", name, stdout, err)
		}
		if err := json.Unmarshal([]byte(stderr), &fault); err != nil {
			t.Errorf("%s: stderr %q: %v", name, stderr, err)
		}
		if status != StatusFailed || string(doc.Format) != test.format || doc.FileSize != int64(len(test.content)) || doc.Import.Ready ||
			doc.Import.Reason != fault.Error.Message || fault.Error.Code != test.code {
			t.Errorf("%s: status %d, %+v, %+v", name, status, doc, fault.Error)
		}
	}
}

// TestInfoTellsWhatIsNotImported: a disk that can be read but not quick-imported is no
// failure.
func TestInfoTellsWhatIsNotImported(t *testing.T) {
	t.Parallel()
	for name, content := range map[string][]byte{
		"odd.raw":    bytes.Repeat([]byte("disk"), 1000), // no whole sectors
		"disk.qcow2": qcow2Header(func([]byte) {}),
	} {
		path := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(path, content, 0o600))
		status, stdout, stderr := run(t, "info", path)
		if status != statusOK || stderr != "" || !strings.Contains(stdout, "Quick import  no: ") {
			t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
		}
		status, stdout, stderr = run(t, "info", "--json", path)
		var doc infoDoc
		if err := json.Unmarshal([]byte(stdout), &doc); err != nil || status != statusOK || stderr != "" || doc.Import.Ready || doc.Import.Reason == "" {
			t.Errorf("status %d, %v, stdout %q, stderr %q", status, err, stdout, stderr)
		}
	}
}
