#!/bin/sh
# Set-up, called by ./weft when a stamp in build/ is missing or older than what it was made from. Idempotent; says what it
# is doing, keeps the details in build/setup.log, and two at once wait for each other.
set -eu
home=$WEFT_HOME
groups=$WEFT_GROUPS
log=$home/build/setup.log
cd "$home"

exec 9>"$home/build/.setup-lock"
if ! flock -n 9; then
  echo "weft: another set-up is running here; waiting for it" >&2
  flock 9
fi
: >"$log"
begun=$(date +%s)

say() { printf 'weft: %s\n' "$*" >&2; }

fail() { # code message
  say "$1: $2"
  say "the last lines of $log:"
  tail -n 15 "$log" | sed 's/^/        /' >&2
  exit 1
}

# step TEXT COMMAND...: run quietly; every 10 seconds say that it still runs.
step() {
  text=$1
  shift
  say "$text …"
  began=$(date +%s)
  "$@" >>"$log" 2>&1 9>&- &
  job=$!
  (
    while sleep 10; do say "  still at it, $(($(date +%s) - began)) s: $(tail -n 1 "$log" | cut -c1-90)"; done
  ) 9>&- &
  ticker=$!
  code=0
  wait "$job" || code=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  return "$code"
}

# --- Debian packages ---
wanted=$(awk -v groups=" $groups " '
  { sub(/#.*/, "") }
  NF == 0 { next }
  { group = NF > 1 ? $2 : "run"; if (index(groups, " " group " ")) print $1 }' scripts/debian-packages | sort -u)
command -v kubectl >/dev/null 2>&1 || wanted="$wanted kubernetes-client"
# npm is only needed to bring Node 24; any node from 18 on will do for that.
if ! command -v npm >/dev/null 2>&1; then wanted="$wanted npm"; fi

if command -v dpkg-query >/dev/null 2>&1; then
  missing=
  for package in $wanted; do
    status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case $status in ii*) ;; *) missing="$missing $package" ;; esac
  done
  if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    step "updating Debian's package list" apt-get update -q ||
      say "  apt-get update failed; trying with the list that is there"
    # Services of packages (containerd, podman) are of no use here: policy-rc.d keeps them from starting.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
      printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
      chmod 755 /usr/sbin/policy-rc.d
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
    fi
    # shellcheck disable=SC2086
    step "installing$missing" apt-get install -y -q --no-install-recommends $missing ||
      fail WEFT_SETUP_FAILED "apt-get could not install:$missing"
  fi
else
  for tool in ip nft ping nsenter gcc npm; do
    command -v "$tool" >/dev/null 2>&1 ||
      fail WEFT_SETUP_FAILED "this is not Debian and '$tool' is missing; install it with your own package manager"
  done
fi

# --- Node 24 and the npm packages ---
node=$home/node_modules/node/bin/node
if [ ! -x "$node" ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  # Without install scripts: npm 9 hangs up on that of the `node` package, npm 11 holds it back, and no other is needed.
  step "npm ci (libraries)" npm ci --ignore-scripts --no-audit --no-fund || fail WEFT_SETUP_FAILED "npm ci failed"
fi
# The `node` package fetches the binary for this processor, by npm.
bring_node() { (cd node_modules/node && node installArchSpecificPackage); }
[ -x "$node" ] || step "Node 24" bring_node || fail WEFT_SETUP_FAILED "the npm package 'node' could not bring Node 24"
major=$("$node" -p 'process.versions.node.split(".")[0]' 2>>"$log" || echo 0)
[ "$major" -ge 24 ] || fail WEFT_SETUP_FAILED "Node 24 did not arrive at $node"

# --- compiled objects ---
step "compiling into build/" sh scripts/build.sh || fail WEFT_SETUP_FAILED "scripts/build.sh failed"

# With the same flags as later, for the cache is kept by them.
warm() {
  for flags in "" "--max-semi-space-size=1 --expose-gc"; do
    # shellcheck disable=SC2086
    NODE_COMPILE_CACHE="$home/build/compile-cache" "$node" --disable-warning=ExperimentalWarning $flags src/cli/main.ts warm
  done
}
step "warming the compile cache" warm || fail WEFT_SETUP_FAILED "weft warm failed"

for group in $groups; do touch "build/.ready-$group"; done
say "set-up done in $(($(date +%s) - begun)) s"
