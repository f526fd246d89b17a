package identity

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// SealKeySize is the length of the key that seals secrets, in bytes.
const SealKeySize = chacha20poly1305.KeySize

// sealPrefix names the form of a sealed secret: XChaCha20-Poly1305, base64 of the
// 24-byte nonce and the sealed bytes.
const sealPrefix = "x1:"

// sealer seals secrets. Each is bound to its access key: moved to another row it
// does not open.
type sealer struct{ aead cipher.AEAD }

func newSealer(key []byte) (sealer, error) {
	if len(key) != SealKeySize {
		return sealer{}, fmt.Errorf("the seal key has %d bytes, it must have %d", len(key), SealKeySize)
	}
	aead, err := chacha20poly1305.NewX(key)
	return sealer{aead}, err
}

func (s sealer) seal(random io.Reader, accessKey, secret string) (string, error) {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(secret)+s.aead.Overhead())
	if _, err := io.ReadFull(random, nonce); err != nil {
		return "", fmt.Errorf("seal a secret: %w", err)
	}
	return sealPrefix + base64.StdEncoding.EncodeToString(s.aead.Seal(nonce, nonce, []byte(secret), []byte(accessKey))), nil
}

func (s sealer) open(accessKey, sealed string) (string, error) {
	text, ok := strings.CutPrefix(sealed, sealPrefix)
	b, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(b) < s.aead.NonceSize() {
		return "", fmt.Errorf("the sealed secret of access key %s has no known form", accessKey)
	}
	secret, err := s.aead.Open(nil, b[:s.aead.NonceSize()], b[s.aead.NonceSize():], []byte(accessKey))
	if err != nil {
		return "", fmt.Errorf("the secret of access key %s does not open: the seal key is not the one it was sealed with", accessKey)
	}
	return string(secret), nil
}

// SealKeyFile reads the seal key from a file of 64 hex digits and makes the file,
// mode 0600, where there is none. Without it the secrets in the database are lost.
func SealKeyFile(path string) ([]byte, error) {
	key, err := readSealKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key = make([]byte, SealKeySize)
	if _, err := io.ReadFull(rand.Reader, key); err != nil {
		return nil, fmt.Errorf("make the seal key %s: %w", path, err)
	}
	// Written aside, then linked: the name appears with its whole content, and of
	// two processes that start at once one key wins.
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("make the seal key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		if err = os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
			return readSealKey(path)
		}
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("make the seal key %s: %w", path, err)
	}
	return key, nil
}

func readSealKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the seal key: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return nil, fmt.Errorf("read the seal key %s: %w", path, err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != SealKeySize {
		return nil, fmt.Errorf("the seal key %s must be %d hex digits", path, 2*SealKeySize)
	}
	return key, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
