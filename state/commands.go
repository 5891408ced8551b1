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
	TypeUpdateCluster    Type = 4
	TypeFoldHistory      Type = 5
	TypeCreateWorkspace  Type = 10
	TypeUpdateWorkspace  Type = 11
	TypeArchiveWorkspace Type = 12
	TypeDeleteWorkspace  Type = 13
	TypeBlockUser        Type = 14
	TypePutTemplate      Type = 20
	TypeDeleteTemplate   Type = 21
	TypeInstallTemplates Type = 22
	TypeCreateInstance   Type = 30
	TypeStartInstance    Type = 31
	TypeStopInstance     Type = 32
	TypeRestartInstance  Type = 33
	TypeDeleteInstance   Type = 34
	TypeExtendInstance   Type = 35
	TypePlaceRuns        Type = 40
	TypeStartExternal    Type = 41
	TypeRenewExternal    Type = 42
	TypeEndExternal      Type = 43
	TypeRenewLeases      Type = 44
	TypeExpireLeases     Type = 45
	TypeReport           Type = 50
	TypeSetReachable     Type = 51
	TypeRemoveVolume     Type = 60
	TypeKeepVolume       Type = 61
	TypeSetRegistry      Type = 70
	TypeRemoveRegistry   Type = 71
	TypeSetPrice         Type = 80
	TypeRemovePrice      Type = 81
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

// makers make an empty command of each type.
var makers = map[Type]func() Command{
	TypeInitCluster:      func() Command { return new(InitCluster) },
	TypeRaiseVersion:     func() Command { return new(RaiseVersion) },
	TypeSweep:            func() Command { return new(Sweep) },
	TypeUpdateCluster:    func() Command { return new(UpdateCluster) },
	TypeFoldHistory:      func() Command { return new(FoldHistory) },
	TypeCreateWorkspace:  func() Command { return new(CreateWorkspace) },
	TypeUpdateWorkspace:  func() Command { return new(UpdateWorkspace) },
	TypeArchiveWorkspace: func() Command { return new(ArchiveWorkspace) },
	TypeDeleteWorkspace:  func() Command { return new(DeleteWorkspace) },
	TypeBlockUser:        func() Command { return new(BlockUser) },
	TypePutTemplate:      func() Command { return new(PutTemplate) },
	TypeDeleteTemplate:   func() Command { return new(DeleteTemplate) },
	TypeInstallTemplates: func() Command { return new(InstallTemplates) },
	TypeCreateInstance:   func() Command { return new(CreateInstance) },
	TypeStartInstance:    func() Command { return new(StartInstance) },
	TypeStopInstance:     func() Command { return new(StopInstance) },
	TypeRestartInstance:  func() Command { return new(RestartInstance) },
	TypeDeleteInstance:   func() Command { return new(DeleteInstance) },
	TypeExtendInstance:   func() Command { return new(ExtendInstance) },
	TypePlaceRuns:        func() Command { return new(PlaceRuns) },
	TypeStartExternal:    func() Command { return new(StartExternal) },
	TypeRenewExternal:    func() Command { return new(RenewExternal) },
	TypeEndExternal:      func() Command { return new(EndExternal) },
	TypeRenewLeases:      func() Command { return new(RenewLeases) },
	TypeExpireLeases:     func() Command { return new(ExpireLeases) },
	TypeReport:           func() Command { return new(Report) },
	TypeSetReachable:     func() Command { return new(SetReachable) },
	TypeRemoveVolume:     func() Command { return new(RemoveVolume) },
	TypeKeepVolume:       func() Command { return new(KeepVolume) },
	TypeSetRegistry:      func() Command { return new(SetRegistry) },
	TypeRemoveRegistry:   func() Command { return new(RemoveRegistry) },
	TypeSetPrice:         func() Command { return new(SetPrice) },
	TypeRemovePrice:      func() Command { return new(RemovePrice) },
}

// newCommand is an empty command of a type, nil for one we don't know.
func newCommand(t Type) Command {
	if make := makers[t]; make != nil {
		return make()
	}
	return nil
}
