#!/bin/sh
# The workload of berth's demo and tests. Usage: workload BEHAVIOUR [ARGUMENT]
# Times are milliseconds since boot.

now() {
	read -r up _ </proc/uptime
	echo "${up%.*}${up#*.}0"
}

# count writes "N MS" to /tmp/counter every 200 ms, and a line to stdout each
# second, until it gets TERM.
count() {
	trap 'echo "asked to stop at $n"; exit 0' TERM
	n=0
	while :; do
		echo "$n $(now)" >>/tmp/counter
		[ $((n % 5)) -eq 0 ] && echo "count $n"
		n=$((n + 1))
		sleep 0.2
	done
}

case "${1:-count}" in
count) count ;;
exit) exit "${2:-0}" ;;
ignore-term)
	trap '' TERM
	echo ready
	while :; do sleep 0.2; done
	;;
children)
	# Processes that leave their parent's session and ignore TERM.
	for _ in 1 2 3; do
		setsid sh -c 'trap "" TERM; while :; do sleep 0.2; done' &
	done
	echo ready
	wait
	;;
fill-log)
	head -c "$((${2:-10} * 1048576))" /dev/zero | tr '\0' 'x'
	echo done >/tmp/filled
	count
	;;
allocate)
	dd if=/dev/zero of=/dev/null bs="${2:-64}M" count=1
	;;
env) env ;;
*) exec "$@" ;;
esac
