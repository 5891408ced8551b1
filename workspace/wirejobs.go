package workspace

import "time"

// What the native API says of jobs, external runs and lifetimes, for both of its
// sides.

// MaxDuration bounds how long a run may be given to live, in seconds: 30 days.
const MaxDuration = 30 * 24 * 60 * 60

// MaxExternalLease bounds the lease of an external run.
const MaxExternalLease = 30 * 24 * time.Hour

// NewExternalRun asks for leave to run something elsewhere. Everything is
// optional.
type NewExternalRun struct {
	Workspace    string `json:"workspace,omitempty" doc:"id or slug"`
	User         string `json:"user,omitempty" doc:"whose it is; absent: the caller's"`
	Name         string `json:"name,omitempty" doc:"for people"`
	Rate         int64  `json:"rate_micro_usd_per_hour,omitempty" minimum:"0" doc:"what an hour of it costs; 0 when absent"`
	LeaseSeconds int64  `json:"lease_seconds,omitempty" minimum:"0" doc:"how long its slot is kept without a renewal, at most 30 days; a day when absent"`
}

// Lease asked for; 0: none was. More than MaxExternalLease is CodeInvalid.
func (n *NewExternalRun) Lease() (time.Duration, error) {
	if n.LeaseSeconds < 0 || n.LeaseSeconds > int64(MaxExternalLease/time.Second) {
		return 0, InvalidField("lease_seconds", "%d is outside 0 (a day) to %d (30 days)", n.LeaseSeconds, MaxExternalLease/time.Second)
	}
	return time.Duration(n.LeaseSeconds) * time.Second, nil
}

// ExternalEnd says how an external run ended.
type ExternalEnd struct {
	Phase    Phase  `json:"phase,omitempty" enum:"succeeded,failed,stopped" default:"succeeded"`
	Message  string `json:"message,omitempty" doc:"for people"`
	ExitCode *int   `json:"exit_code,omitempty"`
}

// Extension moves the time at which an instance is deleted.
type Extension struct {
	ToBeDeletedAt Optional[time.Time] `json:"to_be_deleted_at" required:"true" doc:"in UTC, such as 2026-01-31T12:00:00Z; null: never"`
}

// Ending is something alive that ends soon.
type Ending struct {
	Workspace string `json:"workspace"`
	Instance  string `json:"instance,omitempty"`
	Name      string `json:"name,omitempty" doc:"of the instance, or of the external run"`
	Run       string `json:"run,omitempty"`
	Warning
}

// ValidateUTC refuses a time that isn't in UTC, or not written so: another zone
// is never translated silently.
func ValidateUTC(field string, t time.Time) error {
	if !t.IsZero() && t.Location() != time.UTC {
		return InvalidField(field, "%s is in another zone: times are UTC and end in Z, such as %s",
			t.Format(time.RFC3339), t.UTC().Format(time.RFC3339))
	}
	return nil
}

func validateMaxDuration(seconds int64) error {
	if seconds < 0 || seconds > MaxDuration {
		return InvalidField("max_duration_seconds", "%d is outside 0 (without end) to %d (30 days)", seconds, MaxDuration)
	}
	return nil
}
