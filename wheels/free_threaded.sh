#!/usr/bin/env bash
# Build free-threaded CPython 3.13 from Debian trixie's source into build/free-threaded; needs gcc
# and Debian's libffi-dev, libssl-dev and zlib1g-dev. Then:
#
#     make wheel VENV=.venv-free-threaded PYTHON=build/free-threaded/bin/python3.13t
#
# Optimized as little as the tests bear, for the sake of the time that it takes.
set -euo pipefail
cd "$(dirname "$0")/.."

built=$PWD/build/free-threaded
rm -rf "$built"
mkdir -p "$built/apt/lists/partial" "$built/apt/archives/partial" "$built/source"
cd "$built"
# A list of sources of its own, from the system's mirror: the system's list stays as it is.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' | head -n 1)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" \
    >apt/sources.list
apt=(apt-get --quiet --quiet --option "Dir::Etc::sourcelist=$PWD/apt/sources.list"
    --option Dir::Etc::sourceparts=- --option "Dir::State::lists=$PWD/apt/lists"
    --option "Dir::Cache=$PWD/apt" --option APT::Sandbox::User=root)
"${apt[@]}" update
"${apt[@]}" source --download-only --tar-only python3.13
tar -xJf python3.13_*.orig.tar.xz --strip-components=1 -C source
cd source
./configure --quiet --disable-gil --disable-test-modules --prefix="$built" CFLAGS=-O1
make --quiet --jobs="${JOBS:-$(nproc)}"
make --quiet install
rm -rf "$built/source"
