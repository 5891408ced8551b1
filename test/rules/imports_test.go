package rules

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "berth/"

// everything in a row stands for all packages of the module but fakes.
const everything = "*"

// importMap says which packages of this module each package may import. A new
// package gets its own row; docs/architecture.md says why the rows are as they
// are. Folders below test/ share one row.
var importMap = map[string][]string{
	"workspace":           {"gpu"},
	"gpu":                 {},
	"gpu/nvml":            {"gpu"},
	"gpu/gputest":         {"gpu"},
	"runtime":             {},
	"runtime/containerd":  {"runtime"},
	"runtime/network":     {"runtime"},
	"runtime/volume":      {"runtime"},
	"runtime/runtimetest": {"runtime"},
	"web":                 {},
	"packaging":           {},
	"stream":              {"workspace"},
	"state":               {"workspace", "gpu"},
	"scheduler":           {"workspace", "gpu", "state"},
	"lease":               {"workspace", "state"},
	"scheduler/simulate":  {"workspace", "gpu", "state", "scheduler"},
	"agent":               {"workspace", "gpu", "runtime", "agent/guard"},
	"agent/guard":         {},
	"cluster":             {"workspace", "gpu", "state"},
	"metrics":             {"workspace", "gpu", "state"},
	"api":                 {"workspace", "gpu", "state", "stream", "web"},
	"client":              {"workspace", "gpu", "stream"},
	"doctor":              {"workspace"},
	"cmd/berth":           {"workspace", "gpu", "agent/guard", "client", "doctor", "stream", "state", "scheduler", "scheduler/simulate"},
	"cmd/berth-helper":    {"agent/guard"},
	"cmd/berthd":          {everything},
	"test":                {everything},
}

// adapters are the libraries that only one package (besides the daemon, which
// wires, and test/) may import, so that everything else is tested without them.
var adapters = map[string]string{ // import path prefix → package
	"github.com/containerd/containerd":    "runtime/containerd",
	"github.com/NVIDIA/":                  "gpu/nvml",
	"github.com/hashicorp/raft":           "cluster",
	"github.com/prometheus/client_golang": "metrics",
	"github.com/vishvananda/netlink":      "runtime/network",
}

func row(dir string) (allowed []string, ok bool) {
	if strings.HasPrefix(dir, "test/") {
		dir = "test"
	}
	allowed, ok = importMap[dir]
	return allowed, ok
}

// checkImports holds every import between our packages to the import map.
func checkImports(t *tree) []string {
	var problems []string
	for _, folder := range t.folders {
		allowed, ok := row(folder.dir)
		if !ok {
			problems = append(problems, fmt.Sprintf("%s: no row in the import map: say in test/rules what it may import", folder.dir))
			continue
		}
		for _, f := range folder.files {
			for _, spec := range f.ast.Imports {
				target, ours := strings.CutPrefix(importPath(spec.Path.Value), module)
				if !ours || mayImport(folder.dir, allowed, target, f.isTest()) {
					continue
				}
				problems = append(problems, fmt.Sprintf("%s: %s may not import %s (import map in test/rules)", t.place(spec), folder.dir, target))
			}
		}
	}
	return problems
}

func importPath(literal string) string {
	unquoted, err := strconv.Unquote(literal)
	if err != nil {
		panic(err) // the parser accepts string literals only
	}
	return unquoted
}

// mayImport decides one edge. Fakes and test tools are for tests: a test may
// import those of the packages its own package may import.
func mayImport(dir string, allowed []string, target string, fromTest bool) bool {
	fromTest = fromTest || strings.HasPrefix(dir, "test/")
	if target == dir {
		return fromTest // an external test package, the compiler refuses the rest
	}
	if strings.HasPrefix(target, "test/") {
		return fromTest
	}
	if strings.HasSuffix(target, "test") {
		fakeOf := path.Dir(target)
		return fromTest && (fakeOf == dir || slices.Contains(allowed, fakeOf) || slices.Contains(allowed, everything))
	}
	return slices.Contains(allowed, target) || slices.Contains(allowed, everything)
}

// checkImportMap keeps a subpackage's row within its parent's row plus the
// parent.
func checkImportMap(rows map[string][]string) []string {
	var problems []string
	for dir, allowed := range rows {
		parent := path.Dir(dir)
		parents, ok := rows[parent]
		if !ok {
			continue
		}
		for _, target := range allowed {
			if target != parent && !slices.Contains(parents, target) {
				problems = append(problems, fmt.Sprintf("import map: %s may import %s, which its parent %s may not", dir, target, parent))
			}
		}
	}
	slices.Sort(problems)
	return problems
}

// checkAdapters keeps the libraries behind a seam out of all other packages.
func checkAdapters(t *tree) []string {
	var problems []string
	for _, folder := range t.folders {
		if folder.dir == "cmd/berthd" || strings.HasPrefix(folder.dir, "test/") {
			continue
		}
		for _, f := range folder.files {
			for _, spec := range f.ast.Imports {
				for prefix, adapter := range adapters {
					if strings.HasPrefix(importPath(spec.Path.Value), prefix) && folder.dir != adapter {
						problems = append(problems, fmt.Sprintf("%s: only %s imports %s", t.place(spec), adapter, prefix))
					}
				}
			}
		}
	}
	return problems
}

// checkImportNames keeps the two packages called runtime apart for readers.
func checkImportNames(t *tree) []string {
	var problems []string
	for _, folder := range t.folders {
		for _, f := range folder.files {
			for _, spec := range f.ast.Imports {
				name := ""
				if spec.Name != nil {
					name = spec.Name.Name
				}
				switch importPath(spec.Path.Value) {
				case "runtime":
					if name != "goruntime" {
						problems = append(problems, fmt.Sprintf("%s: import the standard library's runtime as goruntime", t.place(spec)))
					}
				case module + "runtime":
					if name != "" {
						problems = append(problems, fmt.Sprintf("%s: import berth/runtime under its own name, not %s", t.place(spec), name))
					}
				}
			}
		}
	}
	return problems
}
