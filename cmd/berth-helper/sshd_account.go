package main

import (
	"cmp"
	"os"
	"os/user"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const plainShell = "/bin/sh"

// account is who sessions run as: the user that the server runs as.
type account struct {
	name, home, shell string
}

// currentAccount takes what /etc/passwd says, where it says something. HOME of
// the container's environment comes first: it may be on the volume.
func currentAccount() account {
	uid := strconv.Itoa(os.Getuid())
	a := account{name: uid, home: os.Getenv("HOME"), shell: plainShell}
	if found, err := user.LookupId(uid); err == nil {
		a.name = found.Username
		a.home = cmp.Or(a.home, found.HomeDir)
	}
	a.home = cmp.Or(a.home, "/")
	if shell := loginShell(uid); usableShell(shell) {
		a.shell = shell
	}
	return a
}

func loginShell(uid string) string {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(passwd)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) == 7 && fields[2] == uid {
			return fields[6]
		}
	}
	return ""
}

// usableShell: who has been let in by a key may have a shell, also where the
// image's user has none because it is a service's.
func usableShell(shell string) bool {
	switch path.Base(shell) {
	case "nologin", "false":
		return false
	}
	return shell != "" && unix.Access(shell, unix.X_OK) == nil
}

// environment is the container's, with what a login adds.
func (a account) environment() []string {
	return append(os.Environ(), "USER="+a.name, "LOGNAME="+a.name, "HOME="+a.home, "SHELL="+a.shell)
}
