package identity

import (
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// SealKeySize is the length of the key that seals secrets, in bytes.
const SealKeySize = chacha20poly1305.KeySize

// ErrSealKey says that a secret was sealed with another key.
var ErrSealKey = errors.New("the seal key is not the one it was sealed with")

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
		return "", fmt.Errorf("the secret of access key %s does not open: %w", accessKey, ErrSealKey)
	}
	return string(secret), nil
}
