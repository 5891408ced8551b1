// Package rules keeps the shape of the code by tests: who imports whom, what
// the replicated state may not do, how long files and functions get, and which
// module versions are pinned. Each rule is a function from a source tree to
// sentences about what breaks it, so that it is tried on bad trees as well.
package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// root of the module, seen from this package's folder.
const root = "../.."

// tree is every Go file of a module, whatever its build tags.
type tree struct {
	fset    *token.FileSet
	folders []folder // sorted by dir
}

// folder holds one package and its tests.
type folder struct {
	dir   string // slash-separated, below the root; "." is the root itself
	files []file
}

type file struct {
	path  string
	lines int
	ast   *ast.File
}

func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// load parses every Go file below fsys except what Go itself leaves out and
// the folders that the Makefile writes into.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet()}
	byDir := map[string][]file{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && ignored(name) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		f, err := t.parse(fsys, name)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		byDir[dir] = append(byDir[dir], f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load the source tree: %w", err)
	}
	for dir, files := range byDir {
		t.folders = append(t.folders, folder{dir: dir, files: files})
	}
	slices.SortFunc(t.folders, func(a, b folder) int { return strings.Compare(a.dir, b.dir) })
	return t, nil
}

func ignored(dir string) bool {
	base := path.Base(dir)
	return base == "testdata" || base[0] == '.' || base[0] == '_' || dir == "bin" || dir == "build"
}

func (t *tree) parse(fsys fs.FS, name string) (file, error) {
	source, err := fs.ReadFile(fsys, name)
	if err != nil {
		return file{}, err
	}
	parsed, err := parser.ParseFile(t.fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return file{}, err
	}
	return file{path: name, lines: strings.Count(string(source), "\n"), ast: parsed}, nil
}

// place says where a node is, as file:line.
func (t *tree) place(node ast.Node) string {
	position := t.fset.Position(node.Pos())
	return fmt.Sprintf("%s:%d", position.Filename, position.Line)
}

// TestTree holds the module itself to every rule that needs no types.
func TestTree(t *testing.T) {
	source, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]func(*tree) []string{
		"imports":         checkImports,
		"import map":      func(*tree) []string { return checkImportMap(importMap) },
		"adapters":        checkAdapters,
		"import names":    checkImportNames,
		"package comment": checkPackageComments,
		"budget":          func(s *tree) []string { return checkBudget(s, longFunctions) },
		"folder names":    checkFolderNames,
	}
	for name, check := range rules {
		t.Run(name, func(t *testing.T) {
			for _, problem := range check(source) {
				t.Error(problem)
			}
		})
	}
}
