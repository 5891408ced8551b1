package workspace

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// TestLabels: ValidateLabel accepts exactly the DNS labels that are not too
// long, and Slugify makes one of any name or nothing.
func TestLabels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z0-9-]{0,70}`), rapid.StringMatching(`[A-Za-z !_.é-]{0,80}`)).Draw(t, "text")
		want := label.MatchString(text) && len(text) <= MaxInstanceName
		if err := ValidateLabel("name", text, MaxInstanceName); (err == nil) != want {
			t.Errorf("ValidateLabel(%q) = %v", text, err)
		} else if err != nil && (CodeOf(err) != CodeInvalid || !strings.HasPrefix(err.Error(), "invalid: name: ")) {
			t.Errorf("ValidateLabel(%q) says %q, without the field", text, err)
		}
		slug := Slugify(text)
		if slug != "" && ValidateLabel("slug", slug, MaxSlug) != nil {
			t.Errorf("Slugify(%q) = %q, which isn't a label", text, slug)
		}
		if slug == "" && strings.ContainsAny(strings.ToLower(text), "abcdefghijklmnopqrstuvwxyz0123456789") {
			t.Errorf("Slugify(%q) is empty", text)
		}
		if Slugify(slug) != slug || strings.Contains(slug, "--") {
			t.Errorf("Slugify(%q) = %q isn't final", text, slug)
		}
	})
}

func TestSlugify(t *testing.T) {
	for name, want := range map[string]string{
		"Team A": "team-a", "  a  b!!": "a-b", "日本": "", "Größe 7": "gr-e-7", "--x--": "x",
		strings.Repeat("a", 62) + " b": strings.Repeat("a", 62), strings.Repeat("b", 70): strings.Repeat("b", 63),
	} {
		if got := Slugify(name); got != want {
			t.Errorf("Slugify(%q) = %q, want %q", name, got, want)
		}
	}
}
