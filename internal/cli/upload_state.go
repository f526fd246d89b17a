package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/quickims/quickims/internal/client"
)

// uploadState is what is kept of an upload in parts while it is under way, in a file
// of the user's cache folder, so that a later run can go on with it. It is a help:
// without it unfinished uploads are looked for in the store. What of the file is in
// the store is always asked of the store.
type uploadState struct {
	Endpoint string    `json:"endpoint"`
	Bucket   string    `json:"bucket"`
	Key      string    `json:"key"`
	UploadID string    `json:"upload_id"`
	Host     string    `json:"host"` // where the file is: folders of caches may be shared
	File     string    `json:"file"`
	Size     int64     `json:"size"`     // of the file, in bytes
	Modified time.Time `json:"modified"` // when the file was written last; zero for a device
	// ETag is the object's, from when all parts are sent: the store's answer to their
	// being put together may be lost.
	ETag string `json:"etag,omitempty"`
	// Converted says that the parts were made on the way. They can't be gone on with.
	Converted bool `json:"converted,omitempty"`

	path string // of the file that holds this; "" if there can be none
}

// maxState bounds a state file, in bytes: three names and some numbers.
const maxState = 64 << 10

// newState is the state of an upload that is about to begin.
func (s *session) newState(store *client.Store, src *source, to objectName) *uploadState {
	host, _ := os.Hostname() // "" is a host too
	state := &uploadState{
		Endpoint: store.Endpoint(), Bucket: to.bucket, Key: to.key, Host: host, File: absolute(src.path), Size: src.size,
		path: s.statePath(store.Endpoint(), to),
	}
	if src.info.Mode().IsRegular() {
		state.Modified = src.info.ModTime().UTC()
	}
	return state
}

// statePath is where the state of uploads to an object lies: XDG_CACHE_HOME, else
// HOME/.cache ("XDG Base Directory Specification").
func (s *session) statePath(endpoint string, to objectName) string {
	cache := s.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(cache) {
		home := s.Getenv("HOME")
		// A home that is not there is nobody's to make.
		if info, err := os.Stat(home); err != nil || !info.IsDir() || !filepath.IsAbs(home) {
			return ""
		}
		cache = filepath.Join(home, ".cache")
	}
	name := sha256.Sum256([]byte(endpoint + "\x00" + to.bucket + "\x00" + to.key))
	return filepath.Join(cache, "quickims", "uploads", hex.EncodeToString(name[:])+".json")
}

// readState reads a state file; nil if it is none.
func readState(path string) *uploadState {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState))
	found := &uploadState{path: path}
	if err != nil || json.Unmarshal(text, found) != nil || found.UploadID == "" {
		return nil
	}
	return found
}

// earlier reads the state that an earlier upload to the same object left; nil if
// there is none that can be read.
func (u *uploadState) earlier() *uploadState {
	if u.path == "" {
		return nil
	}
	found := readState(u.path)
	if found == nil || found.Endpoint != u.Endpoint || found.Bucket != u.Bucket || found.Key != u.Key {
		return nil
	}
	return found
}

// maxStates bounds how many state files are looked through.
const maxStates = 1000

// outdated are the states that cut imports of the same file left when it was another
// one: their objects are in other generations' folders. Nobody goes on with them.
func (u *uploadState) outdated() (found []*uploadState) {
	name, ok := withoutGeneration(u.Key)
	if u.path == "" || !ok {
		return nil
	}
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(u.path), "*.json"))
	for _, path := range files[:min(len(files), maxStates)] {
		other := readState(path)
		if path == u.path || other == nil || other.Endpoint != u.Endpoint || other.Bucket != u.Bucket ||
			other.Host != u.Host || other.File != u.File || other.Key == u.Key {
			continue
		}
		if otherName, ok := withoutGeneration(other.Key); ok && otherName == name {
			found = append(found, other)
		}
	}
	return found
}

// dropOutdated throws away what outdated finds, parts and all.
func (s *session) dropOutdated(ctx context.Context, store *client.Store, u *uploadState) {
	for _, other := range u.outdated() {
		s.note("%s was changed since an upload that was cut: what that left in the store is removed", u.File)
		if err := store.Abandon(ctx, other.Bucket, other.Key, other.UploadID); err != nil {
			s.note("it could not be removed, the next run tries again: %v", err)
			continue
		}
		other.forget()
	}
}

// sameFile reports whether both are of one file in one state, whatever its name.
func (u *uploadState) sameFile(other *uploadState) bool {
	return u.Size == other.Size && u.Modified.Equal(other.Modified)
}

// save writes the state. That it can't be written is no reason to stop: it is a help.
func (u *uploadState) save() {
	if u.path == "" {
		return
	}
	text, err := json.Marshal(u)
	if err != nil || os.MkdirAll(filepath.Dir(u.path), 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(u.path), ".state-*")
	if err != nil {
		return
	}
	_, err = f.Write(text)
	if errors.Join(err, f.Close()) != nil || os.Rename(f.Name(), u.path) != nil {
		os.Remove(f.Name())
	}
}

// forget removes the state.
func (u *uploadState) forget() {
	if u.path != "" {
		os.Remove(u.path)
	}
}
