package guard

import (
	"encoding/json"
	"errors"
	"fmt"
)

// The protocol: the client sends one request, a JSON object on a line of its
// own, and gets one reply or, for a list, one for each entry and a last one
// without. A connection takes any number of requests. Unknown fields are
// skipped, so that a guard and a daemon of two versions understand each other.

type operation string

const (
	opSet    operation = "set"
	opStop   operation = "stop"
	opClear  operation = "clear"
	opList   operation = "list"
	opStatus operation = "status"
	opQuit   operation = "quit"
)

type request struct {
	Op       operation `json:"op"`
	Deadline *Deadline `json:"deadline,omitempty"` // of set and stop
	Run      string    `json:"run,omitempty"`      // of clear
}

type reply struct {
	Code    string  `json:"code,omitempty"`    // empty: it is done
	Message string  `json:"message,omitempty"` // with a code
	Entry   *Entry  `json:"entry,omitempty"`   // of list; another reply follows
	Status  *Status `json:"status,omitempty"`
}

// codes are how errors cross the socket. An error with none of them crosses as
// codeFailed.
var codes = map[string]error{
	"earlier": ErrEarlier, "other_boot": ErrOtherBoot, "ended": ErrEnded, "invalid": ErrInvalid,
	"busy": ErrBusy,
}

const codeFailed = "failed"

func refusal(err error) reply {
	for code, class := range codes {
		if errors.Is(err, class) {
			return reply{Code: code, Message: err.Error()}
		}
	}
	return reply{Code: codeFailed, Message: err.Error()}
}

// refused is an error that has crossed the socket.
type refused struct {
	class   error // nil: none of the known
	message string
}

func (r *refused) Error() string { return "guard: " + r.message }
func (r *refused) Unwrap() error { return r.class }

func (r *reply) err() error {
	if r.Code == "" {
		return nil
	}
	return &refused{class: codes[r.Code], message: r.Message}
}

func decodeRequest(line []byte) (*request, error) {
	r := &request{}
	if err := json.Unmarshal(line, r); err != nil {
		return nil, fmt.Errorf("%w: no request: %w", ErrInvalid, err)
	}
	switch r.Op {
	case opSet, opStop:
		if r.Deadline == nil {
			return nil, fmt.Errorf("%w: %s without a deadline", ErrInvalid, r.Op)
		}
		return r, r.Deadline.check()
	case opClear, opList, opStatus, opQuit:
		return r, nil
	}
	return nil, fmt.Errorf("%w: no operation is called %.50q", ErrInvalid, string(r.Op))
}
