package main

import (
	"errors"
	"strconv"
	"strings"

	"berth/workspace"
)

// Flags of limits: an amount in USD or a number, and none for unlimited. One
// that isn't given leaves its field absent.

const none = "none"

// moneyFlag is an amount in USD.
type moneyFlag struct{ to *workspace.Optional[int64] }

func (f moneyFlag) Set(text string) error {
	f.to.Set, f.to.Value = true, nil
	if text == none {
		return nil
	}
	micro, err := parseUSD(text)
	f.to.Value = &micro
	return err
}

func (f moneyFlag) String() string { return "" }
func (f moneyFlag) Type() string   { return "usd|none" }

// parseUSD reads an amount. Its error names no field: that is whoever's asks.
func parseUSD(text string) (micro int64, err error) {
	micro, err = workspace.ParseUSD("", text)
	var e *workspace.Error
	if errors.As(err, &e) {
		return 0, errors.New(e.Fields[""])
	}
	return micro, err
}

// countFlag is a whole number.
type countFlag[T int | int64] struct{ to *workspace.Optional[T] }

func (f countFlag[T]) Set(text string) error {
	f.to.Set, f.to.Value = true, nil
	if text == none {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, strconv.IntSize)
	if err != nil || n < 0 {
		return errors.New("it must be a whole number, or none")
	}
	count := T(n)
	f.to.Value = &count
	return nil
}

func (f countFlag[T]) String() string { return "" }
func (f countFlag[T]) Type() string   { return "number|none" }

// usdText is an amount in USD, none for no limit.
func usdText(micro *int64) string {
	if micro == nil {
		return none
	}
	return workspace.FormatUSD(*micro)
}

// usdNumber is an amount in USD without the unit, for columns that name it.
func usdNumber(micro int64) string { return strings.TrimSuffix(workspace.FormatUSD(micro), " USD") }

// usdLimit is usdNumber of a limit.
func usdLimit(micro *int64) string {
	if micro == nil {
		return none
	}
	return usdNumber(*micro)
}
