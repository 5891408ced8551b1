package workspace

// Sealed is a secret as the log and the snapshots hold it: never in clear. The
// key lives in a file (0600) of the data directory, outside both.
type Sealed struct {
	KeyID  string `json:"key_id" cbor:"1,keyasint"`
	Nonce  []byte `json:"nonce" cbor:"2,keyasint"`
	Sealed []byte `json:"sealed" cbor:"3,keyasint"`
}

// Secret is a secret in clear, on its way. It prints as [redacted] everywhere;
// Reveal is the one way to its text.
type Secret struct{ text string }

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal gives the text.
func (s Secret) Reveal() string { return s.text }

const redacted = "[redacted]"

func (s Secret) String() string { return redacted }

// GoString keeps %#v from printing the text.
func (s Secret) GoString() string { return redacted }

// MarshalText keeps encoders (JSON, CBOR, slog) from printing the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
