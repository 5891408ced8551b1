// Command berth-helper is the small static program that berth puts beside a
// container's own processes. As `init` it is PID 1 inside the container; as
// `log` it is the logger that containerd's shim starts for the container's
// output. It depends on no daemon: both roles go on while berthd and containerd
// are down. As `guard` it is the process that ends runs when their time is over.
// The rest are tools for images that have none of their own: something that
// idles, copies in and out, an SSH server.
package main

import (
	"fmt"
	"os"
)

// version is set by the linker.
var version = "dev"

const usage = `usage:
  berth-helper init -- COMMAND [ARGUMENT...]   run a command as PID 1
  berth-helper log MAXBYTES:FILE               write fd 3 and fd 4 to a file of bounded size
  berth-helper pause                           wait for TERM or INT
  berth-helper tar-out PATH                    write a file or directory to stdout as a tar
  berth-helper tar-in DIR                      unpack a tar from stdin in a directory
  berth-helper sshd --port N --dir DIR         serve SSH to the keys in $BERTH_SSH_KEY
  berth-helper guard --dir D --socket S [--daemon]
                                               end the processes of runs when their time is over
  berth-helper version`

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	switch {
	case len(args) >= 3 && args[0] == "init" && args[1] == "--":
		return runInit(args[2:])
	case len(args) == 2 && args[0] == "log":
		return runLog(args[1])
	case len(args) == 1 && args[0] == "pause":
		return runPause()
	case len(args) == 2 && args[0] == "tar-out":
		return runTarOut(args[1], os.Stdout)
	case len(args) == 2 && args[0] == "tar-in":
		return runTarIn(args[1], os.Stdin)
	case len(args) == 5 && args[0] == "sshd" && args[1] == "--port" && args[3] == "--dir":
		return runSSHD(args[2], args[4])
	case len(args) > 1 && args[0] == "guard":
		return runGuard(args[1:])
	case len(args) == 1 && args[0] == "version":
		fmt.Println(version)
		return 0
	}
	fmt.Fprintln(os.Stderr, usage)
	return 2
}
