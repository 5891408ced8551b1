package workspace

// PullRequest asks a node to fetch an image from its registry.
type PullRequest struct {
	Reference string `json:"reference" required:"true" doc:"such as docker.io/library/busybox:1.36"`
	Node      string `json:"node,omitempty" doc:"id or host name; absent: the host that answers"`
}

// PullEvent is one line of the answer to a PullRequest: how far it is, or, on
// the last line, the image or why there is none.
type PullEvent struct {
	Progress *PullProgress `json:"progress,omitempty"`
	Image    *NodeImage    `json:"image,omitempty"`
	Error    *Error        `json:"error,omitempty"`
}

// ReasonPulling is why an instance waits whose image is being pulled. Where an
// answer knows how far that is, its message begins with the percentage: "43 % of".
const ReasonPulling = "pulling_image"

// Access is how to get into an instance, with the secrets that this takes.
type Access struct {
	Instance string            `json:"instance" doc:"id"`
	Name     string            `json:"name"`
	Status   Status            `json:"status"`
	Ways     []Way             `json:"ways" doc:"none while it isn't running"`
	Secrets  map[string]string `json:"secrets" doc:"generated ones, and those in the URLs, by variable"`
}

// Way is one way into a running instance.
type Way struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	URL      string `json:"url,omitempty" doc:"of a page, with its secret"`
	Command  string `json:"command,omitempty" doc:"to log in with"`
}

// RegistryLoginChange sets the login to a registry.
type RegistryLoginChange struct {
	Username string `json:"username" required:"true"`
	Password string `json:"password" required:"true" doc:"kept sealed and never shown"`
}

// KeepVolume changes what becomes of a detached volume.
type KeepVolume struct {
	Policy string `json:"storage_policy,omitempty" doc:"retain or retain:<days>, from now; absent: retain"`
}

// CheckStatus is how a check of a host came out.
type CheckStatus string

// How a check can come out.
const (
	CheckOK   CheckStatus = "ok"
	CheckWarn CheckStatus = "warn"
	CheckFail CheckStatus = "fail"
)

// Check is one thing that a host must have, or should, and whether it has it.
type Check struct {
	Name    string      `json:"name"`
	Status  CheckStatus `json:"status" enum:"ok,warn,fail"`
	Message string      `json:"message"`
	Fix     string      `json:"fix,omitempty" doc:"what to do about it"`
}
