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

// Matches reports whether a device is of the type asked for: MatchType, where an
// item that names MIG takes slices only and any other takes whole devices only.
// Who asks for a GPU doesn't want a seventh of one.
func Matches(request string, info *Info) bool {
	slice := info.Parent != ""
	if strings.TrimSpace(request) == "" {
		return !slice
	}
	for item := range strings.SplitSeq(request, "|") {
		if namesSlice(item) == slice && strings.TrimSpace(item) != "" && MatchType(item, info.Type) {
			return true
		}
	}
	return false
}

func namesSlice(item string) bool { return strings.Contains(strings.ToUpper(item), "MIG") }

// HasMemory reports whether a device has the memory asked for, or nearly: the
// driver keeps some of what a card is sold with (an "80 GB" A100 has 81 559 MiB).
func (i *Info) HasMemory(mib int64) bool { return i.MemoryMiB*100 >= mib*nominalPercent }

// nominalPercent of the memory asked for is enough (docs/domain.md, defaults).
const nominalPercent = 97

func trimPrefixFold(s, prefix string) string {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):]
	}
	return s
}
