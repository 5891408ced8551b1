package runtime

// Places inside every container that are berth's own. No image's file and no
// volume is seen there.
const (
	// HelperPath is the program berth-helper: "tar-out PATH" and "tar-in DIR"
	// are for Exec.
	HelperPath = "/.berth/helper"
	// DriverLibDir is for the driver's libraries. Where a Device mounts something
	// below it, it comes first in the LD_LIBRARY_PATH of all processes: the
	// image's loader cache was made without a driver.
	DriverLibDir = "/.berth/driver"
)
