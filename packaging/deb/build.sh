#!/usr/bin/env bash
# Writes build/berth_VERSION_amd64.deb from the binaries in bin/.
#
#   build.sh VERSION NFPM
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# A Debian version begins with a digit: a commit alone sorts below any release.
version=${1#v}
[[ $version == [0-9]*.* ]] || version=0.0.0+git.$version
version=${version//-/.}
nfpm=$2

rm -rf build/deb
mkdir -p build/deb/man1 build/deb/man8
bin/berth man build/deb/man1
bin/berthd man build/deb/man8
gzip --best --no-name build/deb/man1/* build/deb/man8/*
bin/berth completion bash >build/deb/berth.bash
bin/berth completion zsh >build/deb/_berth
bin/berth completion fish >build/deb/berth.fish

BERTH_VERSION=$version "$nfpm" package --config packaging/nfpm.yaml --packager deb --target "build/berth_${version}_amd64.deb"
