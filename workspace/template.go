package workspace

import (
	"time"
)

// VariableType is how a template's variable is checked.
type VariableType string

// The variable types.
const (
	VarString    VariableType = "string"
	VarInt       VariableType = "int"
	VarBool      VariableType = "bool"
	VarSecret    VariableType = "secret"
	VarPublicKey VariableType = "public_key"
)

// Template is what instances are made from: image, command, variables,
// defaults. Runs carry a rendered copy, so editing one changes no run.
type Template struct {
	Name          string        `json:"name"`
	Description   string        `json:"description"`
	Image         string        `json:"image"`
	Command       []string      `json:"command,omitempty"` // ${name} is a variable; empty: the image's
	Env           []EnvVar      `json:"env,omitempty"`
	Variables     []Variable    `json:"variables,omitempty"`
	Ports         []Port        `json:"ports,omitempty"`
	VolumePath    string        `json:"volume_path,omitempty"`
	Probe         *Probe        `json:"probe,omitempty"`
	Resources     Resources     `json:"resources"` // defaults of an instance that names none
	Kind          RunKind       `json:"kind" doc:"interactive when absent"`
	Stoppable     bool          `json:"stoppable" doc:"true when absent"`
	StoragePolicy string        `json:"storage_policy,omitempty"`
	RestartPolicy RestartPolicy `json:"restart_policy,omitzero"`
	StopGrace     int           `json:"stop_grace_seconds" doc:"0 to 600; 30 when absent"`
	// MaxDuration is how long the process of a run may live, in seconds; 0:
	// without end.
	MaxDuration int64     `json:"max_duration_seconds,omitempty" minimum:"0"`
	BuiltIn     bool      `json:"built_in"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
	ModifyIndex uint64    `json:"modify_index"`
}

// DefaultTemplate has what a template gets where its author says nothing: its
// JSON is read over it.
func DefaultTemplate() Template {
	return Template{Kind: KindInteractive, Stoppable: true, StopGrace: DefaultStopGrace}
}

// EnvVar is one environment variable; ${name} in Value is a template variable.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Variable is one typed parameter of a template.
type Variable struct {
	Name        string       `json:"name"`
	Type        VariableType `json:"type"`
	Description string       `json:"description,omitempty"`
	Default     string       `json:"default,omitempty"`
	Required    bool         `json:"required,omitempty"`
	Options     []string     `json:"options,omitempty"` // when set, the only values allowed
	// Generate: a secret that isn't given is made, at random, when the instance
	// is. Its owner reads it with the ways into the instance.
	Generate bool `json:"generate,omitempty"`
}

// Port of a template. Number may be a variable: "${notebook_port}".
type Port struct {
	Name     string `json:"name"`
	Number   string `json:"number"`
	Protocol string `json:"protocol"` // HTTP, HTTPS, TCP, SSH
	// Path of the page at an HTTP port, such as "/lab". A secret variable in it
	// ("/?token=${token}") stays as it is and is filled in only where the owner
	// asks for access.
	Path string `json:"path,omitempty"`
}

// Probe says when a container is ready: its port takes connections and, with
// HTTPPath, answers a GET with a status below 500. Until then the run is
// starting. A run that isn't ready in time fails.
type Probe struct {
	HTTPPath string `json:"http_path,omitempty"`
	// Port is a number, a variable or the name of a port; absent: the first port.
	// In a RunSpec it is a number.
	Port    string `json:"port,omitempty"`
	Timeout int    `json:"timeout_seconds,omitempty" doc:"300 when absent"`
}

// Bounds of a probe's timeout, in seconds.
const (
	DefaultProbeTimeout = 300
	MaxProbeTimeout     = 24 * 60 * 60
)
