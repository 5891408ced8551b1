package main

import (
	"encoding/json"
	"fmt"
	"slices"
)

// kind says how objects of a noun are shown. The machine formats need none of
// it but the names: they are the object's own JSON.
type kind[T any] struct {
	columns []column[T]
	id      func(*T) string // unique
	name    func(*T) string // what other commands take, for -o name
	detail  func(*T) []section
}

// section is one part of what get shows: a line with a label, or rows of cells
// below it.
type section struct {
	label string
	text  string
	rows  [][]string
}

func (a *app) newTable() *table {
	return &table{w: a.stdout, header: !a.noHeaders, paint: painter(a.stdout)}
}

// machine reports whether the output is a document for programs.
func (a *app) machine() bool { return a.output == "json" || a.output == "yaml" }

// showList writes a whole list, as one document in the machine formats.
func showList[T any](a *app, k kind[T], items []T) error {
	if a.machine() {
		if items == nil {
			items = []T{} // an empty list is [], never null
		}
		return a.writeDocument(items)
	}
	showRows(a, a.newTable(), k, items)
	return nil
}

// showChanges writes objects one by one, as a watch does: a line of JSON each,
// or a YAML document each.
func showChanges[T any](a *app, t *table, k kind[T], items []T) error {
	switch a.output {
	case "json":
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		for i := range items {
			if err := enc.Encode(&items[i]); err != nil {
				return err
			}
		}
	case "yaml":
		for i := range items {
			fmt.Fprintln(a.stdout, "---")
			if err := a.writeDocument(&items[i]); err != nil {
				return err
			}
		}
	default:
		showRows(a, t, k, items)
	}
	return nil
}

func showRows[T any](a *app, t *table, k kind[T], items []T) {
	if a.output == "name" {
		for i := range items {
			fmt.Fprintln(a.stdout, printable(k.name(&items[i])))
		}
		return
	}
	columns := k.columns
	if a.output != "wide" {
		columns = slices.DeleteFunc(slices.Clone(columns), func(c column[T]) bool { return c.wide })
	}
	writeRows(t, columns, items)
}

// showOne writes one object with all that is known of it.
func showOne[T any](a *app, k kind[T], item *T) error {
	switch {
	case a.machine():
		return a.writeDocument(item)
	case a.output == "name":
		fmt.Fprintln(a.stdout, printable(k.name(item)))
	default:
		a.writeSections(k.detail(item))
	}
	return nil
}

// did tells what a command has done: a sentence, or the object itself for
// programs.
func did[T any](a *app, k kind[T], item *T, format string, args ...any) error {
	if a.machine() || a.output == "name" {
		return showOne(a, k, item)
	}
	a.say(format, args...)
	return nil
}

// say writes a sentence to standard output.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.stdout, printable(fmt.Sprintf(format, args...)))
}

func (a *app) writeSections(sections []section) {
	var widths []int
	for _, s := range sections {
		if s.text != "" {
			widths = widest(widths, [][]string{{s.label + ":", ""}})
		}
	}
	paint := painter(a.stdout)
	for _, s := range sections {
		switch {
		case s.text != "":
			writeAligned(a.stdout, widths, [][]string{{s.label + ":", printable(s.text)}}, paint)
		case len(s.rows) > 0:
			fmt.Fprintf(a.stdout, "%s:\n", s.label)
		}
		rows := each(s.rows, func(cells []string) []string {
			cells = each(cells, func(cell string) string { return orDash(printable(cell)) })
			cells[0] = "  " + cells[0]
			return cells
		})
		writeAligned(a.stdout, widest(nil, rows), rows, paint)
	}
}

func (a *app) writeDocument(v any) error {
	if a.output == "yaml" {
		text, err := marshalYAML(v)
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(text)
		return err
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
