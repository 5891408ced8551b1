package agent

import (
	"sync"

	"berth/runtime"
	"berth/workspace"
)

// The agent itself, where it takes something like a run does.
const (
	usedBySweep   = "the removal of leftovers"
	usedByPurge   = "the deletion of a volume"
	usedByResults = "the deletion of old results"
)

// uses says who has what only one may have at a time: a volume, the ports of an
// instance, a network attachment. It keeps a run from what the one before it
// hasn't let go of yet, and the removal of leftovers from what is in use. It is
// safe for concurrent use.
type uses struct {
	mu sync.Mutex
	by map[string]map[string]bool // what → who
}

func newUses() *uses { return &uses{by: map[string]map[string]bool{}} }

func useVolume(id string) string   { return "volume " + id }
func useInstance(id string) string { return "instance " + id }
func useNetwork(run string) string { return "network " + run }

// usesOf is what a container of an assignment has.
func usesOf(a *workspace.Assignment) []string {
	return usesFor(a.Run, a.Instance, volumeOf(a))
}

// usesOfContainer is what a container that was found here has.
func usesOfContainer(c *runtime.Container) []string {
	from, _ := originOf(c)
	return usesFor(c.ID, from.instance, from.volume)
}

func usesFor(run, instance, volume string) []string {
	list := []string{useNetwork(run)}
	if instance != "" {
		list = append(list, useInstance(instance))
	}
	if volume != "" {
		list = append(list, useVolume(volume))
	}
	return list
}

// take gives all of them to who, or none and says who else has one.
func (u *uses) take(who string, what ...string) (other string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, one := range what {
		for user := range u.by[one] {
			if user != who {
				return user
			}
		}
	}
	u.add(who, what)
	return ""
}

// adopt notes what a container has, whoever else has it.
func (u *uses) adopt(who string, what ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.add(who, what)
}

func (u *uses) add(who string, what []string) {
	for _, one := range what {
		if u.by[one] == nil {
			u.by[one] = map[string]bool{}
		}
		u.by[one][who] = true
	}
}

// drop lets go of all that who has.
func (u *uses) drop(who string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for one, users := range u.by {
		if delete(users, who); len(users) == 0 {
			delete(u.by, one)
		}
	}
}

// letGo drops what who has, and has runs try again that wait for something. A
// volume, or results, that are to be deleted may have waited for a run too.
func (a *Agent) letGo(who string) {
	a.uses.drop(who)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.purges)+len(a.expiries) > 0 && who != usedBySweep && who != usedByPurge && who != usedByResults { // those are of the round that would be woken
		nudge(a.houseNow)
	}
	for _, w := range a.workers {
		if w.waiting {
			w.changed = true
			nudge(w.wake)
		}
	}
}

// has reports whether anybody has one of them.
func (u *uses) has(what ...string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, one := range what {
		if len(u.by[one]) > 0 {
			return true
		}
	}
	return false
}
