package workspace

import (
	"strings"
)

// Longest names, from the exalsius contract (60) and DNS labels (63).
const (
	MaxInstanceName = 60
	MaxSlug         = 63
	MaxName         = 255       // names that are no labels, types, references
	MaxText         = 4096      // descriptions, messages
	MaxSettings     = 64 * 1024 // bytes of a settings object
)

// ValidateLabel checks a DNS label: a–z, 0–9 and inner hyphens.
func ValidateLabel(field, s string, longest int) error {
	switch {
	case s == "":
		return InvalidField(field, "is required")
	case len(s) > longest:
		return InvalidField(field, "%d characters; at most %d", len(s), longest)
	case s[0] == '-' || s[len(s)-1] == '-':
		return InvalidField(field, "%q must begin and end with a letter or digit", s)
	}
	for _, c := range s {
		if !isLabelRune(c) {
			return InvalidField(field, "%q may hold a-z, 0-9 and hyphens only", s)
		}
	}
	return nil
}

// Slugify makes a DNS label of a name; empty when nothing of it is usable.
func Slugify(name string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		if isLabelRune(c) && c != '-' {
			b.WriteRune(c)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	slug := b.String()
	if len(slug) > MaxSlug {
		slug = slug[:MaxSlug]
	}
	return strings.Trim(slug, "-")
}

func isLabelRune(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
}
