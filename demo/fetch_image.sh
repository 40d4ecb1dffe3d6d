#!/bin/sh
# Fetches a small bootable disk image from Debian's package grub-rescue-pc, without installing it.
# Usage: fetch_image.sh TARGET
set -eu

target=$1
inside=usr/lib/grub-rescue/grub-rescue-cdrom.iso

if [ -f "/$inside" ]; then
    mkdir -p "$(dirname "$target")"
    cp "/$inside" "$target.part"
    mv "$target.part" "$target"
    exit
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "The demo's disk image comes from a Debian package, and there is no apt-get here." \
        "Name an image of yours instead: make demo IMAGE=/path/to/file" >&2
    exit 1
fi

as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo

mkdir -p "$(dirname "$target")"
scratch=$(mktemp -d "$(dirname "$target")/fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"

download() {
    (cd "$scratch" && apt-get -qq -o APT::Sandbox::User=root download grub-rescue-pc)
}

if [ -z "$(apt-cache --quiet policy grub-rescue-pc 2>/dev/null)" ] || ! download; then
    echo "The package lists are missing or too old; updating them." >&2
    if ! $as_root apt-get -qq update || ! download; then
        echo "grub-rescue-pc could not be downloaded." \
            "Name an image of yours instead: make demo IMAGE=/path/to/file" >&2
        exit 1
    fi
fi
dpkg-deb -x "$scratch"/grub-rescue-pc_*.deb "$scratch/content"
mv "$scratch/content/$inside" "$target"
