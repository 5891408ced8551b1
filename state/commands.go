package state

import "berth/workspace"

// Type numbers a command in the log. A number is never used again and its
// meaning never changes: a changed meaning is a new type.
type Type uint16

// The command types.
const (
	TypeInitCluster      Type = 1
	TypeRaiseVersion     Type = 2
	TypeSweep            Type = 3
	TypeCreateWorkspace  Type = 10
	TypeUpdateWorkspace  Type = 11
	TypeArchiveWorkspace Type = 12
	TypePutTemplate      Type = 20
	TypeDeleteTemplate   Type = 21
	TypeInstallTemplates Type = 22
	TypeCreateInstance   Type = 30
	TypeStartInstance    Type = 31
	TypeStopInstance     Type = 32
	TypeRestartInstance  Type = 33
	TypeDeleteInstance   Type = 34
	TypePlaceRuns        Type = 40
	TypeReport           Type = 50
	TypeRemoveVolume     Type = 60
	TypeKeepVolume       Type = 61
	TypeSetRegistry      Type = 70
	TypeRemoveRegistry   Type = 71
)

// Version is the cluster_version whose behaviour this binary supports.
const Version = 1

// Command is one change of the state. Its struct is the body of a log entry.
type Command interface {
	Type() Type
	// apply changes the state through tx, or says why not; after an error
	// nothing of it is kept.
	apply(tx *tx) error
}

// fresh checks the id of a new object: old is what has it. Ids are the leader's;
// one given twice would write over another's row.
func fresh[T any](kind, id string, old *T) error {
	if id == "" || old != nil {
		return workspace.Errorf(workspace.CodeConflict, "%q can't be the id of a new %s, it is empty or taken: try again", id, kind)
	}
	return nil
}

// newCommand is an empty command of a type, nil for one we don't know.
func newCommand(t Type) Command {
	switch t {
	case TypeInitCluster:
		return new(InitCluster)
	case TypeRaiseVersion:
		return new(RaiseVersion)
	case TypeSweep:
		return new(Sweep)
	case TypeCreateWorkspace:
		return new(CreateWorkspace)
	case TypeUpdateWorkspace:
		return new(UpdateWorkspace)
	case TypeArchiveWorkspace:
		return new(ArchiveWorkspace)
	case TypePutTemplate:
		return new(PutTemplate)
	case TypeDeleteTemplate:
		return new(DeleteTemplate)
	case TypeInstallTemplates:
		return new(InstallTemplates)
	case TypeCreateInstance:
		return new(CreateInstance)
	case TypeStartInstance:
		return new(StartInstance)
	case TypeStopInstance:
		return new(StopInstance)
	case TypeRestartInstance:
		return new(RestartInstance)
	case TypeDeleteInstance:
		return new(DeleteInstance)
	case TypePlaceRuns:
		return new(PlaceRuns)
	case TypeReport:
		return new(Report)
	case TypeRemoveVolume:
		return new(RemoveVolume)
	case TypeKeepVolume:
		return new(KeepVolume)
	case TypeSetRegistry:
		return new(SetRegistry)
	case TypeRemoveRegistry:
		return new(RemoveRegistry)
	}
	return nil
}
