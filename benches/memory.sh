#!/usr/bin/env bash
# Memory of the proxy while 1 GiB goes up and 1 GiB comes down through it over TLS: identical bytes, and a peak that does
# not depend on the size. Needs curl and sha256sum; stays on loopback.
#
#   benches/memory.sh [BYTES]
set -euo pipefail
cd "$(dirname "$0")/.."
bytes=${1:-1073741824}
limit_kib=$((32 * 1024))

cargo build --release --quiet
proxy=${CARGO_TARGET_DIR:-target}/release/aem-auth-proxy
work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap finish EXIT

port=${PORT:-18080}
admin=127.0.0.1:$((port + 1))
"$proxy" demo --standins-only "$work" --aem-listen "127.0.0.1:$((port + 2))" --ims-listen "127.0.0.1:$((port + 3))" \
  >"$work/standins.log" 2>&1 &
pids+=($!)
for _ in $(seq 200); do
  [ -f "$work/service_token.json" ] && break
  sleep 0.1
done
chmod 600 "$work/service_token.json"
"$proxy" --upstream "https://localhost:$((port + 2))" --credentials-file "$work/service_token.json" \
  --ca-file "$work/ca.pem" --listen "127.0.0.1:$port" --admin-listen "$admin" >"$work/proxy.log" 2>&1 &
pid=$!
pids+=("$pid")
"$proxy" wait --admin-listen "$admin" >/dev/null

peak() { awk '/^VmHWM/ { print $2 }' "/proc/$pid/status"; }
idle=$(peak)

down=$(curl -sf "http://127.0.0.1:$port/download/$bytes" | sha256sum | cut -d' ' -f1)
echo "download  $bytes bytes  sha256 $down  peak $(peak) KiB"

up=$(curl -sf "https://localhost:$((port + 2))/download/$bytes" --cacert "$work/ca.pem" \
  -H "authorization: Bearer $("$proxy" token --raw --upstream "https://localhost:$((port + 2))" \
    --credentials-file "$work/service_token.json" --ca-file "$work/ca.pem")" |
  curl -sf -T - "http://127.0.0.1:$port/upload" | sed -n 's/.*"sha256":"\([0-9a-f]*\)".*/\1/p')
echo "upload    $bytes bytes  sha256 $up  peak $(peak) KiB"

echo "idle peak $idle KiB, limit $limit_kib KiB"
[ "$down" = "$up" ] || { echo "the bytes differ" >&2; exit 1; }
[ "$(peak)" -lt "$limit_kib" ] || { echo "too much memory" >&2; exit 1; }
