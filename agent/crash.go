package agent

// The moments of a start and a stop at which a test may crash the daemon.
const (
	crashAfterMount    = "after-mount" // the volume is made and mounted
	crashAfterAttach   = "after-attach"
	crashBeforeGoAhead = "before-go-ahead"
	crashAfterGoAhead  = "after-go-ahead"
	crashBeforeCreate  = "before-create"
	crashAfterCreate   = "after-create"
	crashBeforeStart   = "before-start"
	crashAfterStart    = "after-start"
	crashAfterProbe    = "after-probe"          // it is ready, and nobody was told
	crashAfterRunning  = "after-running-report" // recorded by the cluster
	crashBeforeTerm    = "before-term"
	crashAfterTerm     = "after-term"
	crashBeforeKill    = "before-kill"
	crashAfterKill     = "after-kill"
	crashBeforeDelete  = "before-delete"
	crashAfterDelete   = "after-delete"
	crashBeforeDetach  = "before-detach"
	crashAfterDetach   = "after-detach"
	crashBeforeUnmount = "before-unmount"
	crashAfterUnmount  = "after-unmount"
	crashBeforeRelease = "before-release"
	crashAfterRelease  = "after-release" // recorded by the cluster
)

// CrashPoints lists the points that Config.Crash is called with, in the order
// in which a start and a stop of a run with a volume, a network and a probe
// pass them.
func CrashPoints() []string {
	return []string{
		crashAfterMount, crashAfterAttach, crashBeforeGoAhead, crashAfterGoAhead,
		crashBeforeCreate, crashAfterCreate, crashBeforeStart, crashAfterStart, crashAfterProbe, crashAfterRunning,
		crashBeforeTerm, crashAfterTerm, crashBeforeKill, crashAfterKill,
		crashBeforeDelete, crashAfterDelete, crashBeforeDetach, crashAfterDetach,
		crashBeforeUnmount, crashAfterUnmount, crashBeforeRelease, crashAfterRelease,
	}
}
