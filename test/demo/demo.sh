#!/usr/bin/env bash
# The main job, as a user would do it, on this host: a berthd of its own starts a
# GPU instance in a real container, with a volume and a published port, is killed,
# and adopts it. The GPUs are this host's own where an NVIDIA driver is loaded,
# else simulated ones. Every step is checked; exit 0 only if each was seen to
# hold. What it made is removed at the end, also when it is interrupted.
set -euo pipefail

cd "$(dirname "$0")/../.."
readonly SIMULATED=A100-SXM4-80GB:8
readonly CGROUPS=/berth-demo
readonly BERTHD=$PWD/bin/berthd BERTH=$PWD/bin/berth
# Named so that no image of this host's user has its name.
readonly IMAGE=berth-demo:$$
dir=""
daemon=""

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
ok() { printf '   ok: %s\n' "$*"; }
die() {
  printf '\ndemo: FAILED: %s\n' "$*" >&2
  if [[ -n $dir && -s $dir/berthd.log ]]; then
    printf 'demo: the end of the log of berthd:\n' >&2
    tail -n 20 "$dir/berthd.log" >&2
  fi
  exit 1
}
# show CMD...: print a command as a user would type it, then run it.
show() {
  printf '   $ %s\n' "${*/#$BERTH/berth}"
  "$@" 2>&1 | sed 's/^/   /'
}
# up_ms: milliseconds since boot, the clock that the workload writes down.
up_ms() {
  local up
  read -r up _ </proc/uptime
  echo "$((10#${up/./} * 10))"
}

clean_up() {
  local status=$?
  trap - EXIT INT TERM
  [[ -n $dir ]] || exit "$status"
  say "clean up"
  # Interrupted while berthd was killed: only berthd can tidy up a containerd
  # that isn't its own.
  if [[ -n $daemon ]] && ! kill -0 "$daemon" 2>/dev/null; then
    launch_daemon
    daemon_ready || true
  fi
  if [[ -n $daemon ]] && kill -0 "$daemon" 2>/dev/null; then
    for i in $("$BERTH" instance ls -o name 2>/dev/null || true); do
      "$BERTH" instance rm "$i" --yes --wait --timeout 20s >/dev/null 2>&1 || true
    done
    "$BERTH" image rm "$IMAGE" >/dev/null 2>&1 || true
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  "$BERTHD" clear "${settings[@]}" >/dev/null 2>&1 || true
  rmdir "/sys/fs/cgroup$CGROUPS" /sys/fs/cgroup/*"$CGROUPS" 2>/dev/null || true
  if grep -q " $dir/" /proc/self/mountinfo; then
    printf 'demo: mounts are left below %s\n' "$dir" >&2
    status=1
  fi
  rm -rf --one-file-system "$dir"
  if ((status == 0)); then
    printf '   removed %s\n\ndemo: every step was seen to hold (%s s)\n' "$dir" "$((($(up_ms) - began) / 1000))"
  fi
  exit "$status"
}
began=$(up_ms)
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

((EUID == 0)) || { echo "demo: containers need root: sudo make demo" >&2; exit 1; }
for b in "$BERTHD" "$BERTH" "$PWD/bin/berth-helper"; do
  [[ -x $b ]] || { echo "demo: $b is missing: run make build" >&2; exit 1; }
done

dir=$(mktemp -d /tmp/berth-demo.XXXXXX)
export BERTH_SOCKET=$dir/berth.sock
# A network of its own beside that of a berth which this host may have.
settings=(--config /dev/null --data-dir "$dir/data" --run-dir "$dir/run" --socket "$BERTH_SOCKET" --http-listen 127.0.0.1:0
  --containerd-cgroup-parent "$CGROUPS" --network-bridge berthdemo0 --network-subnet 10.213.0.0/24)
# Simulated GPUs beside real ones would be a lie, so berthd refuses that.
real="" which="simulated GPUs ($SIMULATED)" kind=(--gpu-type a100)
if [[ -e /proc/driver/nvidia/version || -d /sys/module/nvidia ]]; then
  real=yes which="this host's own GPUs" kind=()
else
  settings+=(--simulate-gpus "$SIMULATED")
fi

launch_daemon() {
  "$BERTHD" run "${settings[@]}" >>"$dir/berthd.log" 2>&1 &
  daemon=$!
}
# daemon_ready: wait until it takes work; false when it ended or took 15 s.
daemon_ready() {
  for _ in $(seq 150); do
    "$BERTH" status -o json 2>/dev/null | grep -q '"ready": 1,' && return
    kill -0 "$daemon" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}
start_daemon() {
  launch_daemon
  daemon_ready || die "berthd ended, or wasn't ready within 15 s"
}

# field FILE KEY: the first value of a key in a JSON document, one key a line.
field() { sed -n 's/^ *"'"$2"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' "$1" | head -n 1; }

# cgroup_file CONTROLLER V1NAME V2NAME: path of a limit of the run's cgroup.
cgroup_file() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo "/sys/fs/cgroup$CGROUPS/$run/$3"
  else
    echo "/sys/fs/cgroup/$1$CGROUPS/$run/$2"
  fi
}

# look: read the instance and find its run and its container's PID 1.
look() {
  "$BERTH" instance get gpu-box -o json >"$dir/instance.json"
  run=$(field "$dir/instance.json" run)
  pid=$(sort -n "$(cgroup_file pids cgroup.procs cgroup.procs)" | head -n 1)
}

# equals WHAT WANT HAVE
equals() {
  [[ $2 == "$3" ]] || die "$1 is $3, not $2"
  ok "$1 = $3"
}

# free_gpus: how many GPUs are free.
free_gpus() {
  "$BERTH" device ls -o json >"$dir/devices.json"
  grep -c '"state": "free"' "$dir/devices.json" || true
}

say "start berthd with $which"
start_daemon
ok "ready, $(($(up_ms) - began)) ms after the demo began"
gpus=$(free_gpus)
((gpus > 0)) || die "no GPU is free on this host: $("$BERTH" device ls)"

say "build and import a small workspace image"
go run ./test/image -o "$dir/demo.tar" -name "$IMAGE"
show "$BERTH" image import "$dir/demo.tar"

say "a workspace, a template, and an instance with 1 GPU, 1 core, 512 MiB, a volume and a page"
cat >"$dir/template.yaml" <<YAML
name: demo
description: counts, and serves what is on its volume
image: $IMAGE
command: [/bin/sh, -c, "httpd -p 8080 -h /workspace && exec /bin/workload count"]
ports:
  - {name: page, number: "8080", protocol: HTTP}
probe: {port: "8080"}
volume_path: /workspace
kind: interactive
stoppable: true
stop_grace_seconds: 5
YAML
show "$BERTH" workspace create demo
export BERTH_WORKSPACE=demo
show "$BERTH" template create -f "$dir/template.yaml"
show "$BERTH" instance create gpu-box --template demo --gpus 1 "${kind[@]}" --cpus 1 --memory 512MiB \
  --storage 64MiB --wait --timeout 30s
show "$BERTH" status
look
equals "status of the instance" RUNNING "$(field "$dir/instance.json" status)"

say "the limits really set in the cgroup of the container (PID $pid)"
if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
  equals cpu.max "100000 100000" "$(<"$(cgroup_file '' '' cpu.max)")"
  equals memory.max $((512 << 20)) "$(<"$(cgroup_file '' '' memory.max)")"
  equals memory.swap.max 0 "$(<"$(cgroup_file '' '' memory.swap.max)")"
else
  equals cpu.cfs_quota_us "$(<"$(cgroup_file cpu cpu.cfs_period_us '')")" "$(<"$(cgroup_file cpu cpu.cfs_quota_us '')")"
  equals memory.limit_in_bytes $((512 << 20)) "$(<"$(cgroup_file memory memory.limit_in_bytes '')")"
  swap=$(cgroup_file memory memory.memsw.limit_in_bytes '')
  if [[ -e $swap ]]; then equals memory.memsw.limit_in_bytes $((512 << 20)) "$(<"$swap")"; fi
fi

say "which GPU the container can open"
minor=$(find "/proc/$pid/root/dev" -maxdepth 1 -name 'nvidia[0-9]*' -printf '%f\n' | sed 's/nvidia//')
[[ $minor =~ ^[0-9]+$ ]] || die "the container has these GPU devices, not exactly one: '$minor'"
foreign=$(((minor + 1) % 8))
# Someone with all rights on the host puts another GPU's node into the container.
mknod -m 666 "/proc/$pid/root/dev/foreign" c 195 "$foreign"
# open_inside NODE: what opening it says, run inside the container.
open_inside() { "$BERTH" exec gpu-box -- /bin/sh -c "exec 3<>$1" 2>&1 || true; }
said=$(open_inside "/dev/nvidia$minor")
if [[ -n $real ]]; then
  [[ -z $said ]] || die "opening its own GPU said '$said'"
  ok "/dev/nvidia$minor is opened; CUDA in it isn't tried, the demo's image has no C library"
else
  [[ $said == *"No such device or address"* ]] || die "opening its own GPU said '$said'"
  ok "/dev/nvidia$minor is let through to the driver (simulated, so: ${said##*: })"
fi
said=$(open_inside /dev/foreign)
[[ $said == *"Operation not permitted"* ]] || die "opening another GPU said '$said'"
ok "GPU $foreign of another user is refused by the kernel (${said##*: })"
show "$BERTH" device ls
if [[ -n $real ]] && command -v nvidia-smi >/dev/null; then show nvidia-smi -L; fi

say "a file on its volume, read through its published port"
show "$BERTH" exec gpu-box -- /bin/sh -c 'echo "written before the stop" >/workspace/index.html; df -h /workspace'
# where: the address of the page. fetch: what a user of this host reads there.
where() {
  "$BERTH" instance access gpu-box -o json >"$dir/access.json"
  url=$(field "$dir/access.json" url)
}
fetch() {
  if command -v curl >/dev/null; then curl -sS --max-time 10 "$url" 2>&1; else "${BERTH_BUSYBOX:-/bin/busybox}" wget -qO- -T 10 "$url" 2>&1; fi
}
where
said=$(fetch) || die "$url says '$said'"
equals "$url" "written before the stop" "$said"
first_url=$url

# counter: the numbers and times (ms) that the container writes five times a second.
counter=/proc/$pid/root/tmp/counter
start_time() { awk '{print $22}' "/proc/$pid/stat"; }

say "kill berthd with SIGKILL, and let the container go on alone for 3 s"
first_start=$(start_time)
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
killed=$(up_ms)
sleep 3
[[ -d /proc/$pid ]] || die "the container ended with the daemon"
start_daemon
old_run=$run old_pid=$pid
look
equals "run" "$old_run" "$run"
equals "PID" "$old_pid" "$pid"
equals "start time of the process (ticks since boot)" "$first_start" "$(start_time)"
equals "status of the instance" RUNNING "$(field "$dir/instance.json" status)"
gap=$(awk -v since="$killed" 'p && $2 > since - 2000 && $2 - p > m {m = $2 - p} {p = $2} END {print m + 0}' "$counter")
after=$(awk -v since="$killed" '$2 > since {n++} END {print n + 0}' "$counter")
((after >= 10)) || die "the container wrote $after times since the kill"
((gap <= 1500)) || die "the container's counter has a gap of $gap ms"
ok "adopted: the container's counter went on, its longest gap is $gap ms"

say "stop, start, delete"
show "$BERTH" instance stop gpu-box --wait --timeout 20s
[[ ! -d /proc/$pid ]] || die "the process lives on after stop"
ok "its process is gone"
# A GPU is free once its node has confirmed that nothing of the run is left.
for _ in $(seq 100); do
  [[ $(free_gpus) == "$gpus" ]] && break
  sleep 0.05
done
equals "free GPUs" "$gpus" "$(free_gpus)"
show "$BERTH" instance start gpu-box --wait --timeout 20s
look
[[ $run != "$old_run" ]] || die "the second start is still run $run"
ok "a new run, PID $pid"
where
said=$(fetch) || die "$url says '$said'"
equals "the address of the page" "$first_url" "$url"
equals "what the volume kept" "written before the stop" "$said"
show "$BERTH" instance rm gpu-box --yes --wait --timeout 20s
[[ ! -d /proc/$pid ]] || die "the process lives on after the delete"
"$BERTH" instance get gpu-box >/dev/null 2>&1 && die "the instance is still there after the delete"
ok "instance and container are gone"

say "money: a second of a GPU costs 1 USD here, and the workspace may spend 15 USD a day"
cat >"$dir/job.yaml" <<YAML
name: demo-job
description: counts until it is stopped
image: $IMAGE
command: [/bin/workload, count]
kind: job
stoppable: true
stop_grace_seconds: 1
YAML
show "$BERTH" template create -f "$dir/job.yaml"
show "$BERTH" price set gpu '*' 3600
show "$BERTH" workspace set demo --daily-budget 15
submit() { "$BERTH" job submit "$1" --template demo-job --gpus 1 "${kind[@]}" --max-duration 8s "${@:2}"; }
code=0
submit first --wait --timeout 60s || code=$?
ok "the first job ran until its max duration (exit code of berth: $code)"
"$BERTH" job get first -o json >"$dir/job.json"
equals "why it ended" max_duration "$(field "$dir/job.json" reason)"
submit second
"$BERTH" job get second -o json >"$dir/job.json"
equals "why the second waits" WORKSPACE_DAILY_BUDGET_EXCEEDED "$(field "$dir/job.json" reason)"
show "$BERTH" workspace usage demo
show "$BERTH" usage --by workspace,gpu-type
"$BERTH" workspace usage demo -o json >"$dir/usage.json"
spent=$(field "$dir/usage.json" spent_micro_usd)
((spent > 6000000 && spent <= 8000000)) || die "the workspace has spent $spent micro-USD for a run of 8 s"
"$BERTH" ledger export -o json >"$dir/ledger.json"
equals "the sum of the ledger" "$spent" "$(sed -n 's/.*"amount_micro_usd": *\([0-9]*\).*/\1/p' "$dir/ledger.json" | awk '{s += $1} END {print s + 0}')"
show "$BERTH" job rm second --yes
show "$BERTH" events
