package agent

// The moments of a start and a stop at which a test may crash the daemon.
const (
	crashBeforeGoAhead = "before-go-ahead"
	crashAfterGoAhead  = "after-go-ahead"
	crashBeforeCreate  = "before-create"
	crashAfterCreate   = "after-create"
	crashBeforeStart   = "before-start"
	crashAfterStart    = "after-start"
	crashAfterRunning  = "after-running-report" // recorded by the cluster
	crashBeforeTerm    = "before-term"
	crashAfterTerm     = "after-term"
	crashBeforeKill    = "before-kill"
	crashAfterKill     = "after-kill"
	crashBeforeDelete  = "before-delete"
	crashAfterDelete   = "after-delete"
	crashBeforeRelease = "before-release"
	crashAfterRelease  = "after-release" // recorded by the cluster
)

// CrashPoints lists the points that Config.Crash is called with, in the order
// in which a start and a stop pass them.
func CrashPoints() []string {
	return []string{
		crashBeforeGoAhead, crashAfterGoAhead, crashBeforeCreate, crashAfterCreate,
		crashBeforeStart, crashAfterStart, crashAfterRunning,
		crashBeforeTerm, crashAfterTerm, crashBeforeKill, crashAfterKill,
		crashBeforeDelete, crashAfterDelete, crashBeforeRelease, crashAfterRelease,
	}
}
