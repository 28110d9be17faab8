#!/bin/sh
# biome for this machine. Its npm wrapper wants a package per platform in the registry, and not every mirror has all of them.
case $(uname -m) in aarch64 | arm64) arch=arm64 ;; *) arch=x64 ;; esac
exec "$(dirname "$0")/../node_modules/@biomejs/cli-linux-$arch/biome" "$@"
