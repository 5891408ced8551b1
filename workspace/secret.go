package workspace

import (
	"fmt"
	"io"
)

// Sealed is a secret as the log and the snapshots hold it: never in clear. The
// key lives in a file (0600) of the data directory, outside both.
type Sealed struct {
	KeyID  string `json:"key_id" cbor:"1,keyasint"`
	Nonce  []byte `json:"nonce" cbor:"2,keyasint"`
	Sealed []byte `json:"sealed" cbor:"3,keyasint"`
}

// Secret is a secret in clear, on its way. It prints as [redacted] everywhere;
// Reveal is the one way to its text.
type Secret struct {
	// A pointer, since fmt reads the unexported fields of a struct around it
	// without asking our methods.
	text *string
}

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal gives the text, empty for the zero Secret.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

const redacted = "[redacted]"

func (s Secret) String() string { return redacted }

// Format keeps every verb from printing the text, %d and %x too.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText keeps encoders (JSON, slog) from printing the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
