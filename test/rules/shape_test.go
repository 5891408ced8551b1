package rules

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// House budget. Tests have no limit on functions: a table is as long as its
// cases.
const (
	maxFileLines     = 600
	maxFunctionLines = 60
)

// longFunctions are the functions over the budget, as folder.Name or
// folder.Type.Name, each with its reason.
var longFunctions = map[string]string{}

// checkBudget holds files and functions to the house budget, and the list of
// exceptions to what is really exceptional.
func checkBudget(t *tree, exceptions map[string]string) []string {
	var problems []string
	unused := map[string]bool{}
	for name := range exceptions {
		unused[name] = true
	}
	for _, folder := range t.folders {
		for _, f := range folder.files {
			if f.lines > maxFileLines {
				problems = append(problems, fmt.Sprintf("%s: %d lines, over %d: split it by what it is about", f.path, f.lines, maxFileLines))
			}
			if f.isTest() {
				continue
			}
			for _, declaration := range f.ast.Decls {
				function, ok := declaration.(*ast.FuncDecl)
				if !ok {
					continue
				}
				lines := t.lines(function)
				if lines <= maxFunctionLines {
					continue
				}
				name := folder.dir + "." + functionName(function)
				delete(unused, name)
				if exceptions[name] == "" {
					problems = append(problems, fmt.Sprintf("%s: %s has %d lines, over %d: split it, or give a reason in longFunctions", t.place(function), name, lines, maxFunctionLines))
				}
			}
		}
	}
	for name := range unused {
		problems = append(problems, fmt.Sprintf("longFunctions: %s is within the budget or gone: take it out", name))
	}
	return problems
}

func (t *tree) lines(node ast.Node) int {
	line := func(pos token.Pos) int { return t.fset.Position(pos).Line }
	return line(node.End()) - line(node.Pos()) + 1
}

func functionName(function *ast.FuncDecl) string {
	if function.Recv == nil {
		return function.Name.Name
	}
	receiver := function.Recv.List[0].Type
	for {
		switch typed := receiver.(type) {
		case *ast.StarExpr:
			receiver = typed.X
		case *ast.IndexExpr:
			receiver = typed.X
		case *ast.IndexListExpr:
			receiver = typed.X
		case *ast.Ident:
			return typed.Name + "." + function.Name.Name
		default:
			return function.Name.Name
		}
	}
}

// checkPackageComments wants each package to say what it is, in one place.
func checkPackageComments(t *tree) []string {
	var problems []string
	for _, folder := range t.folders {
		var commented []string
		for _, f := range folder.files {
			text := f.ast.Doc.Text()
			if text == "" {
				continue
			}
			commented = append(commented, f.path)
			name := f.ast.Name.Name
			if name != "main" && !strings.HasPrefix(text, "Package "+name+" ") {
				problems = append(problems, fmt.Sprintf("%s: the package comment starts with \"Package %s \"", f.path, name))
			}
		}
		switch len(commented) {
		case 1:
		case 0:
			problems = append(problems, fmt.Sprintf("%s: no file has a package comment", folder.dir))
		default:
			problems = append(problems, fmt.Sprintf("%s: package comments in %s: keep one", folder.dir, strings.Join(commented, ", ")))
		}
	}
	return problems
}

// checkFolderNames refuses names that say nothing about what is inside.
func checkFolderNames(t *tree) []string {
	empty := []string{"util", "utils", "common", "helper", "helpers", "misc"}
	var problems []string
	for _, folder := range t.folders {
		for part := range strings.SplitSeq(folder.dir, "/") {
			if slices.Contains(empty, part) {
				problems = append(problems, fmt.Sprintf("%s: a folder called %s says nothing: name it after what it does", folder.dir, part))
			}
		}
	}
	return problems
}
