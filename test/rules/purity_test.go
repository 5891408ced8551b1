package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The state is applied by every server on its own and must come out the same:
// it may not read a clock, draw a random number, do I/O, start a goroutine, or
// depend on the order in which Go walks a map.

// impureImports are packages (and all below them) that the state can't use.
var impureImports = []string{
	"os", "net", "syscall", "unsafe", "runtime", "plugin", "log", "io/ioutil",
	"math/rand", "crypto/rand", "golang.org/x/sys", "golang.org/x/sync/errgroup", "github.com/google/uuid",
}

// pureImports are the harmless ones below impureImports.
var pureImports = []string{"net/netip", "net/url"}

// impureUses are functions, methods and variables of packages that are fine
// otherwise.
var impureUses = []string{
	"time.Now", "time.Since", "time.Until", "time.After", "time.AfterFunc", "time.Tick", "time.Sleep",
	"time.NewTimer", "time.NewTicker", "time.Local", "time.LoadLocation", "(time.Time).Local",
	"context.WithTimeout", "context.WithTimeoutCause", "context.WithDeadline", "context.WithDeadlineCause",
	"fmt.Print", "fmt.Printf", "fmt.Println",
	"(reflect.Value).MapRange", "(reflect.Value).MapKeys", "(*sync.Map).Range", "(*sync.WaitGroup).Go",
}

var (
	mapWalks = []string{"maps.Keys", "maps.Values", "maps.All"}
	sorters  = []string{"slices.Sorted", "slices.SortedFunc", "slices.SortedStableFunc"}
)

func TestStateIsPure(t *testing.T) {
	listed, exports := goList(t, "./state/...")
	if len(listed) == 0 {
		t.Fatal("no package below state: the rule watches nothing")
	}
	for _, p := range listed {
		if strings.HasSuffix(p.ImportPath, "test") {
			continue // a fake or suite
		}
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range p.GoFiles {
			parsed, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, parsed)
		}
		for _, problem := range checkPurity(t, fset, files, exports) {
			t.Error(problem)
		}
	}
}

// listedPackage is what go list says of a package.
type listedPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

// goList gives the packages that match, and the compiled form of all they
// import, for the type checker.
func goList(t *testing.T, patterns ...string) (matched []listedPackage, exports map[string]string) {
	t.Helper()
	command := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,DepOnly"}, patterns...)...)
	command.Dir = root
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list %s: %v", strings.Join(patterns, " "), err)
	}
	exports = map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var p listedPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return matched, exports
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			matched = append(matched, p)
		}
	}
}

// checkPurity type-checks one package and reports what would make two replicas
// differ.
func checkPurity(t *testing.T, fset *token.FileSet, files []*ast.File, exports map[string]string) []string {
	t.Helper()
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", func(name string) (io.ReadCloser, error) {
		return os.Open(exports[name])
	})}
	if _, err := config.Check("checked", fset, files, info); err != nil {
		t.Fatal(err)
	}
	c := purityCheck{fset: fset, info: info, sorted: map[*ast.Ident]bool{}}
	for _, f := range files {
		for _, spec := range f.Imports {
			c.importSpec(spec)
		}
		ast.Inspect(f, c.node)
	}
	return c.problems
}

type purityCheck struct {
	fset     *token.FileSet
	info     *types.Info
	sorted   map[*ast.Ident]bool // walks of maps that a sorter puts in order
	problems []string
}

func (c *purityCheck) report(node ast.Node, format string, args ...any) {
	place := c.fset.Position(node.Pos())
	c.problems = append(c.problems, fmt.Sprintf("%s:%d: %s", filepath.Base(place.Filename), place.Line, fmt.Sprintf(format, args...)))
}

func (c *purityCheck) importSpec(spec *ast.ImportSpec) {
	name := importPath(spec.Path.Value)
	for _, impure := range impureImports {
		if (name == impure || strings.HasPrefix(name, impure+"/")) && !slices.Contains(pureImports, name) {
			c.report(spec, "the state may not import %s", name)
		}
	}
}

func (c *purityCheck) node(node ast.Node) bool {
	switch node := node.(type) {
	case *ast.GoStmt:
		c.report(node, "the state may not start goroutines")
	case *ast.RangeStmt:
		if _, isMap := c.info.TypeOf(node.X).Underlying().(*types.Map); isMap {
			c.report(node, "range over a map has no order: use slices.Sorted(maps.Keys(m))")
		}
	case *ast.CallExpr:
		c.markSorted(node)
	case *ast.Ident:
		name := qualifiedName(c.info.Uses[node])
		if slices.Contains(impureUses, name) {
			c.report(node, "the state may not use %s", name)
		}
		if slices.Contains(mapWalks, name) && !c.sorted[node] {
			c.report(node, "%s has no order: only inside slices.Sorted", name)
		}
	}
	return true
}

// markSorted notes maps.Keys in slices.Sorted(maps.Keys(m)); ast.Inspect comes
// to the outer call first.
func (c *purityCheck) markSorted(call *ast.CallExpr) {
	outer := calledName(call)
	if outer == nil || len(call.Args) == 0 || !slices.Contains(sorters, qualifiedName(c.info.Uses[outer])) {
		return
	}
	if inner, ok := call.Args[0].(*ast.CallExpr); ok {
		if name := calledName(inner); name != nil {
			c.sorted[name] = true
		}
	}
}

// calledName is the last name of what is called, nil when it has none.
func calledName(call *ast.CallExpr) *ast.Ident {
	switch function := call.Fun.(type) {
	case *ast.Ident:
		return function
	case *ast.SelectorExpr:
		return function.Sel
	}
	return nil
}

// qualifiedName writes an object as package.Name, or (package.Type).Method.
func qualifiedName(object types.Object) string {
	switch object := object.(type) {
	case *types.Func:
		return object.FullName()
	case *types.Var:
		if object.Pkg() != nil && object.Parent() == object.Pkg().Scope() {
			return object.Pkg().Path() + "." + object.Name()
		}
	}
	return ""
}
