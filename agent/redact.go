package agent

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"berth/workspace"
)

// redact gives an error of the runtime without the run's secrets: a runtime
// quotes the environment of what it can't start. Whatever of it is reported or
// logged goes through here.
func (w *worker) redact(err error) error { return redactWith(err, w.secrets) }

func redactWith(err error, secrets map[string]workspace.Secret) error {
	text := redactText(err.Error(), secrets)
	if text == err.Error() {
		return err
	}
	return &redactedError{text: text, err: err}
}

// redactedError answers errors.Is as the error that it stands for, and doesn't
// unwrap to it.
type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string        { return e.text }
func (e *redactedError) Is(target error) bool { return errors.Is(e.err, target) }

func redactText(text string, secrets map[string]workspace.Secret) string {
	var forms []string
	for _, secret := range secrets {
		// A runtime may trim its message, and with it a secret at its end.
		if plain := strings.TrimSpace(secret.Reveal()); plain != "" {
			forms = append(forms, formsOf(plain)...)
		}
	}
	// One secret may be a part of another: the longest goes first.
	slices.SortFunc(forms, func(x, y string) int { return len(y) - len(x) })
	var pairs []string
	for _, form := range forms {
		pairs = append(pairs, form, workspace.Secret{}.String())
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// formsOf is how a text looks in a message: as it is, or quoted up to twice, as
// where one program logs what another has quoted.
func formsOf(plain string) []string {
	forms := []string{plain}
	for range 2 {
		for _, form := range forms {
			for _, quote := range []func(string) string{strconv.Quote, strconv.QuoteToASCII, quoteJSON} {
				quoted := quote(form)
				forms = append(forms, quoted[1:len(quoted)-1])
			}
		}
		slices.Sort(forms)
		forms = slices.Compact(forms)
	}
	return forms
}

func quoteJSON(text string) string {
	quoted, _ := json.Marshal(text) // a string always can be
	return string(quoted)
}
