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
	crashAfterBegun    = "after-start-kept"     // when it started is on disk
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

	crashAfterGuard     = "after-guard"      // it holds the run's end
	crashAfterGuardKept = "after-guard-kept" // and it is on disk here
	crashBeforeExpiry   = "before-expiry"    // the end has come
	crashInResults      = "in-results"       // those on the volume are deleted
	crashAfterResults   = "after-results"    // all are, and nobody was told
)

// CrashPoints lists the points that Config.Crash is called with, in the order
// in which a start and a stop of a run with a volume, a network and a probe
// pass them.
func CrashPoints() []string {
	return []string{
		crashAfterMount, crashAfterAttach, crashBeforeGoAhead, crashAfterGoAhead,
		crashBeforeCreate, crashAfterCreate, crashBeforeStart, crashAfterStart, crashAfterBegun,
		crashAfterProbe, crashAfterRunning,
		crashBeforeTerm, crashAfterTerm, crashBeforeKill, crashAfterKill,
		crashBeforeDelete, crashAfterDelete, crashBeforeDetach, crashAfterDetach,
		crashBeforeUnmount, crashAfterUnmount, crashBeforeRelease, crashAfterRelease,
	}
}

// MoreCrashPoints lists those that only runs with an end of their time pass, and
// the deletion of results.
func MoreCrashPoints() []string {
	return []string{crashAfterGuard, crashAfterGuardKept, crashBeforeExpiry, crashInResults, crashAfterResults}
}
