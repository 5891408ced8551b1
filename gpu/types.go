package gpu

import "strings"

// TypeName is the canonical type of a driver's model name: without "NVIDIA "
// and "Tesla ", upper case, blanks to "-" (docs/domain.md, defaults).
func TypeName(model string) string {
	name := strings.TrimSpace(model)
	name = trimPrefixFold(name, "NVIDIA ")
	name = trimPrefixFold(name, "Tesla ")
	return strings.ToUpper(strings.Join(strings.Fields(name), "-"))
}

// MatchType reports whether a device type fulfils a request, which is a list
// separated by "|". An item matches an equal type or a whole-token prefix in
// any case: "a100" matches "A100-SXM4-80GB", "a10" doesn't. An empty request
// matches every type.
func MatchType(request, deviceType string) bool {
	if strings.TrimSpace(request) == "" {
		return true
	}
	for item := range strings.SplitSeq(request, "|") {
		if item = TypeName(item); item == "" {
			continue
		}
		rest, ok := strings.CutPrefix(deviceType, item)
		if ok && (rest == "" || rest[0] == '-') {
			return true
		}
	}
	return false
}

func trimPrefixFold(s, prefix string) string {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):]
	}
	return s
}
