package workspace

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// TestSecretNeverPrints: whatever one does to show a secret, alone or inside
// another value, its text doesn't come out.
func TestSecretNeverPrints(t *testing.T) {
	const text = "hunter2"
	s := NewSecret(text)
	type hidden struct{ s Secret }
	values := map[string]any{
		"alone": s, "pointer": &s, "map": map[string]Secret{"token": s}, "slice": []Secret{s},
		"assignment": Assignment{Secrets: map[string]Secret{"token": s}}, "unexported": hidden{s}, "pointer to it": &hidden{s},
	}
	for name, v := range values {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%U", "%e"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v, fmt.Errorf("wrapped: %v", v))
		text1, _ := json.Marshal(v)
		bytes1, _ := cbor.Marshal(v)
		out.Write(text1)
		out.Write(bytes1)
		var logs bytes.Buffer
		slog.New(slog.NewTextHandler(&logs, nil)).Info("text", "secret", v)
		slog.New(slog.NewJSONHandler(&logs, nil)).Info("json", "secret", v)
		out.Write(logs.Bytes())
		for _, leak := range []string{text, fmt.Sprintf("%x", text), fmt.Sprintf("%X", text), fmt.Sprintf("%d", []byte(text))} {
			if strings.Contains(out.String(), leak) {
				t.Errorf("%s: %q comes out of\n%s", name, leak, out.String())
			}
		}
	}
	if got := fmt.Sprintf("%v %+v %#v %s %d", s, s, s, s, s); got != strings.Repeat(redacted+" ", 4)+redacted {
		t.Errorf("a secret prints as %q", got)
	}
	if s.Reveal() != text || (Secret{}).Reveal() != "" || s.String() != redacted {
		t.Error("Reveal doesn't give the text")
	}
}
