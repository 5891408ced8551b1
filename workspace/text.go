package workspace

import (
	"cmp"
	"strconv"
	"strings"
	"unicode"
)

// Bounds of a template and of what is rendered from it, which every run carries
// along in the log and in snapshots.
const (
	MaxVariables = 100
	MaxOptions   = 256        // of one variable
	MaxUses      = 1000       // of variables in one template: each may put in MaxText bytes
	MaxArguments = 256        // of a command
	MaxEnv       = 256        // environment variables
	MaxPorts     = 64         // of a template
	MaxImage     = 512        // bytes of an image's reference
	MaxValue     = 32 * 1024  // bytes of an argument or an environment variable; Linux takes 128 KiB
	MaxSpec      = 256 * 1024 // bytes of them all
	MaxDays      = 3650       // of storage_policy
)

// validateText checks text that ends up in files and in a container's process,
// neither of which can hold a zero byte.
func validateText(field, s string, longest int) error {
	switch {
	case len(s) > longest:
		return InvalidField(field, "%d bytes; at most %d", len(s), longest)
	case strings.ContainsRune(s, 0):
		return InvalidField(field, "has a zero byte")
	}
	return nil
}

// validateName is validateText for what is shown in one line.
func validateName(field, s string, longest int) error {
	if err := validateText(field, s, longest); err != nil {
		return err
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return InvalidField(field, "%q has a control character, such as a line break", s)
	}
	return nil
}

func validateCount(field string, n, most int) error {
	if n > most {
		return InvalidField(field, "%d entries; at most %d", n, most)
	}
	return nil
}

// validateStoragePolicy: retain, delete, retain:<days>, or nothing for the
// default.
func validateStoragePolicy(policy string) error {
	days, limited := strings.CutPrefix(policy, "retain:")
	n, err := strconv.Atoi(days)
	switch {
	case policy == "", policy == "retain", policy == "delete":
	case limited && err == nil && n >= 1 && n <= MaxDays && strconv.Itoa(n) == days:
	default:
		return InvalidField("storage_policy", "%.40q is none of retain, delete, retain:<days> with 1 to %d days", policy, MaxDays)
	}
	return nil
}

// Validate checks a rendered spec.
func (s *RunSpec) Validate() error {
	return cmp.Or(s.validateTexts(), s.validatePorts(), validateMaxDuration(s.MaxDuration))
}

// validateTexts checks all but what only values can give: a template's spec
// before it is rendered passes too.
func (s *RunSpec) validateTexts() error {
	err := cmp.Or(
		validateCount("command", len(s.Command), MaxArguments),
		validateCount("env", len(s.Env), MaxEnv),
		validateCount("ports", len(s.Ports), MaxPorts),
		validateName("image", s.Image, MaxImage),
		validateName("volume_path", s.VolumePath, MaxText),
	)
	if err != nil {
		return err
	}
	all := len(s.Image)
	for _, arg := range s.Command {
		all += len(arg)
		err = cmp.Or(err, validateText("command", arg, MaxValue))
	}
	for _, e := range s.Env {
		all += len(e.Name) + len(e.Value)
		err = cmp.Or(err, validateName("env", e.Name, MaxName), validateText("env."+e.Name, e.Value, MaxValue))
	}
	for _, p := range s.Ports {
		err = cmp.Or(err, validateName("ports", p.Name, MaxName), validateName("ports", p.Number, MaxName), validateName("ports", p.Protocol, MaxName))
	}
	if p := s.Probe; p != nil {
		err = cmp.Or(err, validateName("probe.http_path", p.HTTPPath, MaxText), validateName("probe.port", p.Port, MaxName))
	}
	if err == nil && all > MaxSpec {
		return InvalidField("template", "its command and environment have %d bytes; at most %d", all, MaxSpec)
	}
	return err
}
