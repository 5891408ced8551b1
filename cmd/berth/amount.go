package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"berth/workspace"
)

// mibPer says how many MiB a unit has. GB and GiB are the same here: a
// gigabyte of a size is 1024 MiB everywhere in berth.
var mibPer = map[string]int64{
	"": 1, "M": 1, "MB": 1, "MIB": 1,
	"G": 1 << 10, "GB": 1 << 10, "GIB": 1 << 10,
	"T": 1 << 20, "TB": 1 << 20, "TIB": 1 << 20,
}

// parseSize reads a size such as "512MiB", "16GB" or "1.5GiB" into MiB; a plain
// number is MiB. A part of a MiB is rounded up.
func parseSize(text string) (mib int64, err error) {
	text = strings.TrimSpace(text)
	unitAt := strings.IndexFunc(text, func(c rune) bool { return c != '.' && (c < '0' || c > '9') })
	if unitAt < 0 {
		unitAt = len(text)
	}
	number, err := strconv.ParseFloat(text[:unitAt], 64)
	per, known := mibPer[strings.ToUpper(strings.TrimSpace(text[unitAt:]))]
	if err != nil || !known {
		return 0, fmt.Errorf("%q is not a size: write a number and MiB, GiB or TiB, such as 512MiB", text)
	}
	size := math.Ceil(number * float64(per))
	if size > workspace.MaxStorageMiB {
		return 0, fmt.Errorf("%q is more than %s", text, formatSize(workspace.MaxStorageMiB))
	}
	return int64(size), nil
}

// formatSize writes MiB in the largest unit that is exact, so that parseSize
// gives the same number back.
func formatSize(mib int64) string {
	switch {
	case mib != 0 && mib%(1<<20) == 0:
		return fmt.Sprintf("%dTiB", mib>>20)
	case mib != 0 && mib%(1<<10) == 0:
		return fmt.Sprintf("%dGiB", mib>>10)
	}
	return fmt.Sprintf("%dMiB", mib)
}

// formatBytes writes a number of bytes for people, to one decimal.
func formatBytes(n int64) string {
	size, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if size < 1024 {
			break
		}
		size, unit = size/1024, next
	}
	return strings.TrimSuffix(strconv.FormatFloat(size, 'f', 1, 64), ".0") + unit
}

// parseCores reads a number of cores such as "1.5" into thousandths.
func parseCores(text string) (milli int64, err error) {
	text = strings.TrimSpace(text)
	whole, part, _ := strings.Cut(text, ".")
	cores, err := strconv.ParseUint(whole, 10, 31)
	if len(part) > 3 || err != nil {
		return 0, notCores(text)
	}
	thousandths, err := strconv.ParseUint((part + "000")[:3], 10, 16)
	if err != nil {
		return 0, notCores(text)
	}
	return int64(cores)*1000 + int64(thousandths), nil
}

func notCores(text string) error {
	return fmt.Errorf("%q is not a number of cores: write such as 2 or 1.5, with at most three decimals", text)
}

// formatCores writes thousandths of a core as cores.
func formatCores(milli int64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
}

// sizeFlag and coresFlag are flag values that stay nil when not given, so that
// the template's default holds. They write into a request's field.
type sizeFlag struct{ mib **int64 }

func (f sizeFlag) Set(text string) error {
	mib, err := parseSize(text)
	*f.mib = &mib
	return err
}

func (f sizeFlag) String() string { return "" }
func (f sizeFlag) Type() string   { return "size" }

type coresFlag struct{ milli **int64 }

func (f coresFlag) Set(text string) error {
	milli, err := parseCores(text)
	*f.milli = &milli
	return err
}

func (f coresFlag) String() string { return "" }
func (f coresFlag) Type() string   { return "cores" }
