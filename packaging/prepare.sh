#!/usr/bin/env bash
# Checks that this host can build, run or test berth, and installs what is
# missing. It looks for each program first, so that a host that has them from
# somewhere else (containerd from Docker's packages, say) is left as it is; it
# never removes a package. Of what it installs, only containerd has a service,
# which systemd may start; berthd uses it then.
#
#   prepare.sh build   Go, and a C compiler: berthd calls the GPU driver's library
#   prepare.sh run     + root, git, containerd, runc, iptables, nftables, e2fsprogs, a
#                      static busybox
#   prepare.sh test    + iproute2, ssh, promtool, mmdebstrap, a Chromium
#   prepare.sh vm      what run has, mmdebstrap and qemu
#   prepare.sh image   what run has, and mmdebstrap
#
# A host that has the busybox with shared libraries (most Debian servers: their
# initramfs wants one) keeps it: the static one is unpacked to build/tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly go_needed=1.26.6
declare -rA targets=([run]=demo [test]=test [vm]=vm-test [image]=jupyter-image) # of make

fail() {
	printf 'berth: %s\n' "$@" >&2
	exit 1
}

check_go() {
	command -v go >/dev/null ||
		fail "go isn't in PATH; berth needs Go $go_needed or newer." \
			"Install it as go.dev/doc/install says and put its bin folder into PATH."
	local version
	version=$(go env GOVERSION 2>/dev/null) || version="older than go.mod asks for"
	version=${version#go}
	[[ $version == devel* ]] && return
	printf '%s\n' "$go_needed" "$version" | sort --check=quiet --version-sort ||
		fail "Go is $version; berth needs Go $go_needed or newer." \
			"Install it as go.dev/doc/install says and put its bin folder first in PATH."
}

check_host() {
	[[ $(uname -s) == Linux ]] || fail "containers need Linux; this is $(uname -s)."
	[[ $(id -u) == 0 ]] ||
		fail "real containers need root; this is $(id -un)." "Type: sudo make ${1}"
	command -v git >/dev/null || fail "git isn't in PATH." "Type: apt-get install git"
}

# missing_compiler and missing_packages print the Debian package of each program
# that isn't here.
missing_compiler() {
	command -v gcc >/dev/null || echo gcc
	[[ -e /usr/include/stdlib.h ]] || echo libc6-dev
}

missing_packages() {
	missing_compiler
	command -v containerd >/dev/null || echo containerd
	command -v runc >/dev/null || echo runc
	command -v iptables >/dev/null || echo iptables
	command -v nft >/dev/null || echo nftables
	[[ -e /bin/busybox ]] || echo busybox-static
	PATH=$PATH:/usr/sbin:/sbin command -v mkfs.ext4 >/dev/null || echo e2fsprogs # e2fsck and resize2fs too
	[[ $1 == run ]] || command -v mmdebstrap >/dev/null || echo mmdebstrap
	if [[ $1 == vm ]]; then
		command -v qemu-system-x86_64 >/dev/null || echo qemu-system-x86
	fi
	[[ $1 == test ]] || return 0
	command -v ip >/dev/null || echo iproute2
	command -v ssh >/dev/null || echo openssh-client
	missing_browser
}

# missing_browser: any Chromium will do; the one without a window is the smallest.
missing_browser() {
	local name
	for name in chromium-headless-shell chromium google-chrome; do
		command -v "$name" >/dev/null && return
	done
	echo chromium-headless-shell
}

# check_compiler installs what berthd is compiled with, where that is allowed.
check_compiler() {
	local packages
	mapfile -t packages < <(missing_compiler)
	((${#packages[@]} == 0)) && return
	[[ $(id -u) == 0 ]] ||
		fail "no C compiler is here, and berthd needs one: it calls the GPU driver's library." \
			"Type: sudo apt-get install ${packages[*]}"
	install_packages "${packages[@]}"
}

# is_static: a busybox in an image has no C library beside it.
is_static() {
	local libraries
	[[ -x $1 ]] || return
	libraries=$(LC_ALL=C ldd "$1" 2>&1) || true
	[[ $libraries == *"not a dynamic executable"* || $libraries == *"statically linked"* ]]
}

# unpack PACKAGE FILE TARGET puts one program of a package into build/tools
# without installing it: no service of it starts, nothing of the host changes.
unpack() {
	local package=$1 file=$2 target=build/tools/$3 directory
	command -v apt-get >/dev/null ||
		fail "this host has no ${file##*/} that will do, and no apt-get to get one." \
			"Put one at $target, then try again."
	echo "berth: unpacking ${file##*/} to $target"
	directory=$(mktemp -d)
	apt_download "$directory" "$package" >/dev/null 2>&1 || {
		apt-get update -qq || true
		apt_download "$directory" "$package" || fail "apt-get couldn't download $package; its message is above."
	}
	dpkg-deb --extract "$directory/$package"_*.deb "$directory"
	install -D "$directory$file" "$target"
	rm -r "$directory"
}

apt_download() {
	(cd "$1" && apt-get download -qq -o APT::Sandbox::User=root "$2")
}

install_packages() {
	command -v apt-get >/dev/null ||
		fail "missing: $*" "This host has no apt-get (only Debian is known here):" \
			"install what these Debian packages hold, then try again."
	echo "berth: installing $*"
	local output
	output=$(apt_install "$@" 2>&1) && return
	apt-get update -qq || true # the next try says what is wrong
	output=$(apt_install "$@" 2>&1) && return
	printf '%s\n' "$output" >&2
	fail "apt-get couldn't install: $*" \
		"Its message is above. Nothing was removed: if a package of this host is in the way," \
		"see with 'apt-get install $*' which, and decide yourself."
}

apt_install() {
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes \
		--no-install-recommends --no-remove -o DPkg::Lock::Timeout=120 "$@"
}

main() {
	local purpose=${1:-}
	case $purpose in
	build)
		check_go
		check_compiler
		;;
	run | test | vm | image)
		check_go
		check_host "${targets[$purpose]}"
		local packages
		mapfile -t packages < <(missing_packages "$purpose")
		((${#packages[@]} == 0)) || install_packages "${packages[@]}"
		is_static /bin/busybox || is_static build/tools/busybox || unpack busybox-static /bin/busybox busybox
		[[ $purpose != test ]] || command -v promtool >/dev/null || [[ -x build/tools/promtool ]] ||
			unpack prometheus /usr/bin/promtool promtool
		;;
	*) fail "usage: prepare.sh build|run|test|vm|image" ;;
	esac
}

main "$@"
