package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// column is one column of a noun's table.
type column[T any] struct {
	title string
	cell  func(*T) string
	wide  bool // with -o wide only
}

// table writes rows as plain text in columns as wide as the widest cell so far,
// so that the rows that a watch adds later stand below the first ones.
type table struct {
	w      io.Writer
	header bool                // still to be written
	paint  func(string) string // nil, or colours a cell
	widths []int
}

func writeRows[T any](t *table, columns []column[T], rows []T) {
	var lines [][]string
	if t.header {
		t.header = false
		lines = append(lines, each(columns, func(c column[T]) string { return c.title }))
	}
	for i := range rows {
		lines = append(lines, each(columns, func(c column[T]) string { return orDash(printable(c.cell(&rows[i]))) }))
	}
	t.widths = widest(t.widths, lines)
	writeAligned(t.w, t.widths, lines, t.paint)
}

func each[T, U any](all []T, f func(T) U) []U {
	out := make([]U, 0, len(all))
	for _, x := range all {
		out = append(out, f(x))
	}
	return out
}

// widest raises widths, in characters, to what the lines need.
func widest(widths []int, lines [][]string) []int {
	for _, cells := range lines {
		for i, cell := range cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// writeAligned colours a cell after its width is known.
func writeAligned(w io.Writer, widths []int, lines [][]string, paint func(string) string) {
	var b strings.Builder
	for _, cells := range lines {
		for i, cell := range cells {
			last, width := i == len(cells)-1, utf8.RuneCountInString(cell)
			if paint != nil {
				cell = paint(cell)
			}
			b.WriteString(cell)
			if !last {
				b.WriteString(strings.Repeat(" ", widths[i]-width+2))
			}
		}
		b.WriteByte('\n')
	}
	fmt.Fprint(w, b.String())
}

// printable keeps texts that others chose from steering the terminal.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return ' '
		case unicode.IsControl(c) || c == utf8.RuneError:
			return '?'
		}
		return c
	}, text)
}

func orDash(cell string) string {
	if cell == "" {
		return "-"
	}
	return cell
}
