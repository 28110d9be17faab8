#!/bin/sh
# Compiles the C programs into build/, those that are older than their source. Static, so that they start fast (loading a
# shared libc would be most of their time) and run in any mount namespace.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build

# musl makes the smaller and faster-starting binary; without it glibc does.
if command -v musl-gcc >/dev/null 2>&1; then cc=musl-gcc; else cc=gcc; fi

for source in cni/weft-cni.c lab/weft-init.c; do
  target=build/$(basename "$source" .c)
  [ -e "$source" ] || continue
  if [ -x "$target" ] && [ ! "$source" -nt "$target" ] && [ ! "$0" -nt "$target" ]; then continue; fi
  echo "compiling $source with $cc"
  # Renamed into place: a runtime may be executing the old one, and two builds may run at once.
  "$cc" -static -Os -s -Wall -Wextra -ffunction-sections -fdata-sections -Wl,--gc-sections -o "$target.$$" "$source"
  mv -f "$target.$$" "$target"
done
