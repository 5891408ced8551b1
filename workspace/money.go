package workspace

import (
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Money is int64 micro-USD everywhere inside; only the edges of the APIs and the
// command line know decimals, and none knows floats.
const (
	// MaxMoney is the largest amount: 2^53−1, which every JSON reader holds
	// exactly. As a spending limit it means none.
	MaxMoney int64 = 1<<53 - 1
	// MaxRate of a run and of a price, in micro-USD an hour: a million USD.
	MaxRate int64 = 1_000_000 * microUSD

	microUSD  = 1_000_000
	msPerHour = 3_600_000
)

// Cost is what ms milliseconds at a rate (micro-USD an hour) cost: ⌊rate × ms /
// 3 600 000⌋. A charge is the difference of two costs, so that any sequence of
// charges comes to the exact total. It stops at math.MaxInt64.
func Cost(rate, ms int64) int64 {
	if rate <= 0 || ms <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(rate), uint64(ms))
	if hi >= msPerHour {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, msPerHour)
	return int64(min(q, math.MaxInt64)) // #nosec G115 -- bounded
}

// AffordMS is the longest time whose Cost isn't above amount, in milliseconds;
// math.MaxInt64 for rate 0, 0 for a negative amount.
func AffordMS(rate, amount int64) int64 {
	switch {
	case rate <= 0:
		return math.MaxInt64
	case amount < 0:
		return 0
	}
	// The largest ms with rate × ms < (amount + 1) × 3 600 000.
	hi, lo := bits.Mul64(uint64(amount)+1, msPerHour)
	lo, borrow := bits.Sub64(lo, 1, 0)
	hi -= borrow
	if hi >= uint64(rate) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(rate))
	return int64(min(q, math.MaxInt64)) // #nosec G115 -- bounded
}

// CheckMoney refuses an amount that is negative or above MaxMoney.
func CheckMoney(field string, amount int64) error {
	if amount < 0 || amount > MaxMoney {
		return InvalidField(field, "%d micro-USD is outside 0 to %d", amount, MaxMoney)
	}
	return nil
}

// FormatUSD writes an amount in USD: two decimals, more where they matter.
func FormatUSD(micro int64) string {
	sign := ""
	if micro < 0 {
		sign, micro = "-", -micro
	}
	frac := strings.TrimRight(strconv.FormatInt(micro%microUSD+microUSD, 10)[1:], "0")
	for len(frac) < 2 {
		frac += "0"
	}
	return sign + strconv.FormatInt(micro/microUSD, 10) + "." + frac + " USD"
}

// ParseUSD reads an amount in USD such as 12, 12.5, 0.000001 or "12.50 USD".
// Other currencies, signs, exponents and more than six decimals are CodeInvalid.
func ParseUSD(field, text string) (micro int64, err error) {
	number, currency, _ := strings.Cut(strings.TrimSpace(text), " ")
	if plain, ok := strings.CutSuffix(number, "USD"); ok && currency == "" {
		number, currency = plain, "USD"
	}
	if currency = strings.TrimSpace(currency); currency != "" && currency != "USD" {
		return 0, InvalidField(field, "%.40q is in %.20q: amounts are in USD", text, currency)
	}
	whole, frac, hasPoint := strings.Cut(number, ".")
	if !digits(whole) || hasPoint && !digits(frac) || len(frac) > 6 {
		return 0, InvalidField(field, "%.40q isn't an amount in USD such as 12.50, of at most six decimals", text)
	}
	for len(frac) < 6 {
		frac += "0"
	}
	micro, err = strconv.ParseInt(whole+frac, 10, 64)
	if err != nil || micro > MaxMoney {
		return 0, InvalidField(field, "%.40q is above %s", text, FormatUSD(MaxMoney))
	}
	return micro, nil
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// Day is a UTC date, as the number of days since 1970-01-01. In JSON and text it
// is 2006-01-02.
type Day int32

// DayOf a moment.
func DayOf(t time.Time) Day { return DayOfMS(t.UnixMilli()) }

const msPerDay = 24 * 3_600_000

// DayOfMS is the day of a moment in milliseconds since 1970.
func DayOfMS(ms int64) Day {
	d := ms / msPerDay
	if ms%msPerDay < 0 {
		d--
	}
	return Day(d) // #nosec G115 -- a date
}

// Start of the day.
func (d Day) Start() time.Time { return time.UnixMilli(d.StartMS()).UTC() }

// StartMS is Start in milliseconds since 1970.
func (d Day) StartMS() int64 { return int64(d) * msPerDay }

func (d Day) String() string { return d.Start().Format(time.DateOnly) }

// MarshalText and UnmarshalText make it a date.
func (d Day) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts 2006-01-02 only.
func (d *Day) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDay("day", string(b))
	return err
}

// ParseDay reads a UTC date. A time or a zone with it is CodeInvalid: days are
// UTC's everywhere.
func ParseDay(field, text string) (Day, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return 0, InvalidField(field, "%.40q isn't a UTC date such as 2026-01-31 (no time, no zone)", text)
	}
	return DayOf(t), nil
}

// Month is a UTC month as year × 100 + month: 202601.
func Month(t time.Time) int { y, m, _ := t.UTC().Date(); return y*100 + int(m) }
