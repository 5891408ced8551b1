package cluster

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/uuid"

	"berth/workspace"
)

// keyring seals secrets before they enter the log. Its file (0600) is in the
// data directory, outside the log and the snapshots, so that neither tells a
// secret.
type keyring struct {
	path    string
	current string // id of the key that seals
	keys    map[string]cipher.AEAD
}

// keyFile is the file: the last key seals, all of them open.
type keyFile struct {
	Keys []sealingKey `json:"keys"`
}

type sealingKey struct {
	ID  string `json:"id"`
	Key []byte `json:"key"` // 32 bytes
}

const sealingKeyLen = 32

func openKeyring(path string) (*keyring, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKeyring(path); err != nil {
			return nil, err
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the keys of secrets: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("others may read %s (mode %04o): chmod 600 it, and consider the secrets known", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open the keys of secrets: %w", err)
	}
	var file keyFile
	// The file's content never gets into an error.
	if json.Unmarshal(text, &file) != nil || len(file.Keys) == 0 {
		return nil, fmt.Errorf("%s doesn't hold keys: put back a copy of it", path)
	}
	return newKeyring(path, file.Keys)
}

func makeKeyring(path string) error {
	id, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("make a key for secrets: %w", err)
	}
	key := make([]byte, sealingKeyLen)
	rand.Read(key) // never fails, as its documentation says
	text, err := json.MarshalIndent(keyFile{Keys: []sealingKey{{ID: id.String()[:8], Key: key}}}, "", "  ")
	if err != nil {
		return fmt.Errorf("make a key for secrets: %w", err)
	}
	return writeDurably(path, append(text, '\n'))
}

func newKeyring(path string, keys []sealingKey) (*keyring, error) {
	k := &keyring{path: path, keys: map[string]cipher.AEAD{}}
	for _, key := range keys {
		if len(key.Key) != sealingKeyLen {
			return nil, fmt.Errorf("key %s in %s has %d bytes instead of %d: put back a copy of the file", key.ID, path, len(key.Key), sealingKeyLen)
		}
		block, err := aes.NewCipher(key.Key)
		if err != nil {
			return nil, fmt.Errorf("key %s in %s: %w", key.ID, path, err)
		}
		if k.keys[key.ID], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("key %s in %s: %w", key.ID, path, err)
		}
		k.current = key.ID
	}
	return k, nil
}

// Seal makes of a secret what the log may hold, with AES-256-GCM.
func (c *Cluster) Seal(s workspace.Secret) (workspace.Sealed, error) {
	aead := c.keys.keys[c.keys.current]
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce) // never fails, as its documentation says
	return workspace.Sealed{
		KeyID: c.keys.current, Nonce: nonce, Sealed: aead.Seal(nil, nonce, []byte(s.Reveal()), nil),
	}, nil
}

// Open gives a sealed secret back. An error names the key and its file, never
// what was sealed.
func (c *Cluster) Open(s workspace.Sealed) (workspace.Secret, error) {
	aead := c.keys.keys[s.KeyID]
	if aead == nil {
		return workspace.Secret{}, fmt.Errorf("%s has no key %q, with which the secret was sealed: put back a copy of the file", c.keys.path, s.KeyID)
	}
	if len(s.Nonce) != aead.NonceSize() {
		return workspace.Secret{}, fmt.Errorf("the secret sealed with key %q has a nonce of %d bytes: it is damaged", s.KeyID, len(s.Nonce))
	}
	text, err := aead.Open(nil, s.Nonce, s.Sealed, nil)
	if err != nil {
		return workspace.Secret{}, fmt.Errorf("the secret doesn't open with key %q of %s: it is damaged or the key is another", s.KeyID, c.keys.path)
	}
	return workspace.NewSecret(string(text)), nil
}
