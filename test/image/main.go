// Command image writes the demo's image as an OCI archive.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"berth/test/image/ociarchive"
)

func main() {
	var options ociarchive.Options
	output := flag.String("o", "build/demo.tar", "file to write")
	flag.StringVar(&options.Name, "name", "demo:latest", "reference of the image")
	flag.StringVar(&options.User, "user", "", "user of the image, such as berth or 1000:1000")
	flag.StringVar(&options.Busybox, "busybox", ociarchive.Busybox(), "static busybox of this host")
	flag.Parse()
	if err := write(*output, options); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func write(output string, options ociarchive.Options) error {
	var archive bytes.Buffer
	if err := ociarchive.Write(&archive, options); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	return os.WriteFile(output, archive.Bytes(), 0o644)
}
