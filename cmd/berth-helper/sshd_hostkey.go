package main

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

const hostKeyName = "host_ed25519"

// hostKey is the server's own key, made at the first start and kept: clients
// refuse a server whose key has changed. So one that can't be read is never
// replaced.
func hostKey(dir string) (ssh.Signer, error) {
	path := filepath.Join(dir, hostKeyName)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		content, err = makeHostKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(content)
	if err != nil {
		return nil, fmt.Errorf("host key %s: %w; remove it to have a new one, which clients will warn of", path, err)
	}
	return signer, nil
}

// makeHostKey writes under another name first, so that a crash leaves no half a
// key.
func makeHostKey(path string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "berth")
	if err != nil {
		return nil, err
	}
	content := pem.EncodeToMemory(block)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(dir, hostKeyName+".*") // of mode 0600
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return content, os.Rename(file.Name(), path)
}
