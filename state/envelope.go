package state

import (
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"berth/workspace"
)

// Envelope is what every log entry carries around its command. The leader fills
// At; the authenticated server that took the request fills the rest.
type Envelope struct {
	Type      Type            `cbor:"1,keyasint"`
	At        int64           `cbor:"2,keyasint"` // µs since 1970, the leader's clock
	RequestID string          `cbor:"3,keyasint,omitempty"`
	Principal string          `cbor:"4,keyasint,omitempty"` // who asks: a user, a node's id
	Key       string          `cbor:"5,keyasint,omitempty"` // id of the API key used
	Role      workspace.Role  `cbor:"6,keyasint"`
	Idem      *IdempotencyKey `cbor:"7,keyasint,omitempty"`
	Body      cbor.RawMessage `cbor:"8,keyasint"`
}

// IdempotencyKey is a client's promise that two requests are one. Scope is a
// hash of principal, method, path and key; Body a hash of the request's body.
type IdempotencyKey struct {
	Scope string `cbor:"1,keyasint"`
	Body  string `cbor:"2,keyasint"`
}

// Caller is who proposes a command, as the envelope records it.
type Caller struct {
	RequestID string
	Principal string
	Key       string
	Role      workspace.Role
	Idem      *IdempotencyKey
}

// Encode makes the log entry of a command. One that couldn't be read back is
// CodeInvalid: in the log it would stop every replica for good.
func Encode(cmd Command, by Caller, at time.Time) ([]byte, error) {
	body, err := encoder.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", cmd, err)
	}
	payload, err := encoder.Marshal(Envelope{
		Type: cmd.Type(), At: at.UnixMicro(), RequestID: by.RequestID, Principal: by.Principal,
		Key: by.Key, Role: by.Role, Idem: by.Idem, Body: body,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the envelope of %T: %w", cmd, err)
	}
	entry := seal(payload)
	if _, _, err := decode(entry); err != nil {
		return nil, workspace.Errorf(workspace.CodeInvalid, "the request can't be kept in the log: %v", err)
	}
	return entry, nil
}

// decode reads an entry back. Any error means that this replica can't follow
// the log: the daemon must stop rather than skip what others apply.
func decode(entry []byte) (Envelope, Command, error) {
	var env Envelope
	payload, err := open(entry)
	if err != nil {
		return env, nil, err
	}
	if err := decoder.Unmarshal(payload, &env); err != nil {
		return env, nil, fmt.Errorf("log entry's envelope: %w", err)
	}
	cmd := newCommand(env.Type)
	if cmd == nil {
		return env, nil, fmt.Errorf("log entry has command type %d, which this binary doesn't know: use a newer berthd", env.Type)
	}
	if err := decoder.Unmarshal(env.Body, cmd); err != nil {
		return env, nil, fmt.Errorf("log entry's %T: %w", cmd, err)
	}
	return env, cmd, nil
}

// supported: a cluster that has moved on to behaviour this binary doesn't have
// can't be followed by it.
func supported(cmd Command) error {
	if raise, ok := cmd.(*RaiseVersion); ok && raise.To > Version {
		return fmt.Errorf("the cluster goes on to version %d, this binary supports up to %d: use a newer berthd", raise.To, Version)
	}
	return nil
}
