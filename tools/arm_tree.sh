#!/bin/bash
# An aarch64 Python with numpy and apache-tvm-ffi in a folder, for `pytest -m slow tests/export/test_qemu.py`: tools/arm_tree.sh FOLDER
# Needs no root and no ARM: Debian's arm64 packages are unpacked, not installed; wheels come from pip. Running it needs qemu-user (apt install qemu-user).
set -euo pipefail
folder=$(mkdir -p "${1:?usage: tools/arm_tree.sh FOLDER}" && cd "$1" && pwd)
state=$(mktemp -d); trap 'rm -rf "$state"' EXIT
mkdir -p "$state"/{lists,cache}/partial "$state"/cache/archives/partial "$state"/debs "$folder"/site; touch "$state"/status
apt=(apt-get -qq -o Dir::State::lists="$state"/lists -o Dir::State::status="$state"/status -o Dir::Cache="$state"/cache -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User="$(id -un)")
"${apt[@]}" update
(cd "$state"/debs && "${apt[@]}" download libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libuuid1 libcrypt1 libsqlite3-0 \
  libpython3.11-minimal libpython3.11-stdlib python3.11-minimal python3.11)
for package in "$state"/debs/*.deb; do dpkg-deb -x "$package" "$folder"; done
"${PYTHON:-python3}" -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
  -d "$state"/wheels 'numpy<2.5' apache-tvm-ffi==0.1.14.post1 typing_extensions
for wheel in "$state"/wheels/*.whl; do "${PYTHON:-python3}" -m zipfile -e "$wheel" "$folder"/site; done
echo "export CONVGEN_ARM_TREE=$folder"
