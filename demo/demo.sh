#!/bin/sh
# Stores a disk image in the default filesystem store, reads it back, and deletes it again.
# Usage: demo.sh IMAGE, with store-lib in PATH
set -eu

image=$1
scratch=$(mktemp -d)
uri=

finish() {
    [ -z "$uri" ] || store-lib delete "$uri"
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "demo: FAILED: $*" >&2
    exit 1
}

say() {
    printf '\n== %s\n' "$*"
}

# No configuration, so that the store is the one under the user's XDG data directory.
unset STORE_LIB_CONFIG
export XDG_CONFIG_HOME="$scratch"

[ -f "$image" ] || fail "there is no file $image"
size=$(stat -L -c %s "$image")

say "The stores that there are without any configuration"
store-lib stores -c id -c driver -c default -c writable -c free

say "Add $image ($size bytes), with two digests computed on the way"
store-lib add --digest sha256 --digest sha512 -f json "$image" >"$scratch/added.json"
cat "$scratch/added.json"
value() {
    sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$scratch/added.json"
}
uri=$(value uri)
[ -n "$uri" ] || fail "no URI was printed"
[ "$(value size)" = "$size" ] || fail "expected $size bytes, got $(value size)"
for algorithm in sha256 sha512; do
    true_digest=$("${algorithm}sum" <"$image" | cut -d ' ' -f 1)
    [ "$(value $algorithm)" = "$true_digest" ] ||
        fail "expected $algorithm $true_digest, got $(value $algorithm)"
done
echo "Size and digests are those of the file."

say "Get it back, verified on the way, and compare"
store-lib get "$uri" --expect "sha256:$(value sha256)" -o "$scratch/copy"
cmp "$image" "$scratch/copy" || fail "the copy differs"
echo "The copy is the same, byte for byte."

say "Read a range: a third of it, from the middle"
offset=$((size / 3))
length=$((size / 3))
store-lib get "$uri" --offset "$offset" --length "$length" >"$scratch/range"
tail -c "+$((offset + 1))" "$image" | head -c "$length" | cmp - "$scratch/range" ||
    fail "the range differs"
echo "The $length bytes from $offset on are the same."

say "What the store holds"
store-lib list -c id -c size -c modified
store-lib stat "$uri"

say "Delete it"
store-lib delete "$uri"
gone=$uri
uri=
status=0
store-lib stat "$gone" || status=$?
[ "$status" -eq 3 ] || fail "expected exit status 3 for an object that is gone, got $status"
echo "It is gone, and nothing is left."
