package agent

import (
	"fmt"
	"time"

	"berth/workspace"
)

// failure is why something that a run needs isn't there.
type failure struct {
	reason  string
	message string // what is wrong, for people
	err     error
	final   bool // trying again makes no sense
}

// fail ends the run, or holds it back for another try while patience lasts.
func (w *worker) fail(in input, what string, f *failure) {
	now := w.agent.cfg.Boottime()
	if w.trying == 0 {
		w.trying = now
	}
	message := redactText(fmt.Sprintf("%s: %v", f.message, f.err), w.secrets)
	switch {
	case f.final:
		w.failed(what, f.err)
		w.progress.end = endWith(in.assignment, workspace.PhaseFailed, f.reason, message)
	case now-w.trying >= startPatience:
		w.failed(what, f.err)
		w.progress.end = endWith(in.assignment, workspace.PhaseFailed, f.reason,
			fmt.Sprintf("%s (tried for %s)", message, (now-w.trying).Round(time.Second)))
	default:
		w.explain(in, f.reason, fmt.Sprintf("%s (it is tried again, for up to %s)", message, startPatience))
		w.retryLater(what, f.err)
	}
}

// succeeded forgets failures: the next one is a first one again.
func (w *worker) succeeded() { w.failures, w.trying = 0, 0 }
