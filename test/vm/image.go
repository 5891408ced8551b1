package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// packages of the bare host: what Debian's installer would leave, what berth's
// package depends on (the host has no network to fetch it), and an SSH server to
// steer it by.
var packages = []string{
	"systemd-sysv", "systemd-timesyncd", "udev", "dbus", "linux-image-cloud-amd64", "initramfs-tools", "kmod",
	"apparmor", "iproute2", "procps", "ca-certificates", "openssh-server", "nftables", "curl",
	"containerd", "runc", "containernetworking-plugins", "iptables", "e2fsprogs",
}

// setUp is run in the host's root directory once its packages are there.
const setUp = `
cat > etc/systemd/network/10-vm.network <<E
[Match]
Name=en* eth*
[Network]
DHCP=yes
E
chroot . systemctl enable systemd-networkd ssh
echo berth-vm > etc/hostname
echo '/dev/vda / ext4 defaults 0 1' > etc/fstab
install -D -m 0600 ../key.pub root/.ssh/authorized_keys
: > etc/machine-id
rm -f var/cache/apt/archives/*.deb
cp boot/vmlinuz-* ../vmlinuz
cp boot/initrd.img-* ../initrd
`

// baseImage gives the directory that holds a bare host's disk, kernel and key,
// and makes it when there is none for these packages. Debian's updates come with
// a new list only: remove the directory to have them.
func baseImage(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(packages, " ") + setUp))
	dir := filepath.Join(cache, "berth", fmt.Sprintf("vm-%x", sum[:6]))
	if _, err := os.Stat(filepath.Join(dir, "disk.img")); err == nil {
		return dir, nil
	}
	say("making the bare host's disk in %s", dir)
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", err
	}
	if err := makeImage(ctx, fresh); err != nil {
		return "", fmt.Errorf("make the bare host: %w", err)
	}
	return dir, os.Rename(fresh, dir)
}

func makeImage(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := makeKey(dir); err != nil {
		return err
	}
	root, disk := filepath.Join(dir, "root"), filepath.Join(dir, "disk.img")
	for _, step := range [][]string{
		{"mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--include=" + strings.Join(packages, ","),
			"--aptopt=Acquire::Languages \"none\"", "--dpkgopt=path-exclude=/usr/share/doc/*",
			"--dpkgopt=path-exclude=/usr/share/locale/*", "bookworm", root},
		{"bash", "-euc", "cd " + root + setUp},
		{"truncate", "--size=6G", disk},
		{"mkfs.ext4", "-q", "-F", "-d", root, disk},
	} {
		if out, err := exec.CommandContext(ctx, step[0], step[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", step[0], err, out)
		}
	}
	return os.RemoveAll(root)
}

// makeKey makes the key that root logs in with.
func makeKey(dir string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "berth vm-test")
	if err != nil {
		return err
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "key.pub"), ssh.MarshalAuthorizedKey(line), 0o600)
}
