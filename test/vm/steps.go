package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const minute = time.Minute

// steps in order: each begins where the one before has left the host.
var steps = []step{
	{"a bare Debian boots, with systemd, cgroup v2 and AppArmor", bootBare},
	{"apt installs the package; berthd is ready", install},
	{"the units have no unknown keys", verifyUnits},
	{"berth doctor finds nothing to mend", doctor},
	{"an instance with 1 GPU, 1 core and 256 MiB runs", runBox},
	{"its limits are those of its cgroup (v2)", limits},
	{"it opens its own GPU and no other", devices},
	{"systemctl daemon-reload takes no device and no limit away", daemonReload},
	{"one that uses more memory than its limit is killed, and its reason says so", outOfMemory},
	{"the watchdog restarts a berthd that hangs; the container doesn't notice", watchdog},
	{"stop leaves the container; the next command starts berthd by its socket", activation},
	{"the guard is active and protected, and ends what is due while berthd is stopped", guardAlone},
	{"an upgrade leaves the container and adopts it", upgrade},
	{"a reboot brings back what should run", reboot},
	{"a power cut loses no acknowledged write", powerCut},
	{"removal leaves the data", remove},
	{"purge removes everything", purge},
	{"without a containerd on the host, berth runs its own unit", ownContainerd},
}

func bootBare(ctx context.Context, p *proof) error {
	if err := p.boot(ctx); err != nil {
		return err
	}
	return p.expect(ctx, "systemd cgroup2fs Y",
		`echo $(cat /proc/1/comm) $(stat -f -c %%T /sys/fs/cgroup) $(cat /sys/module/apparmor/parameters/enabled)`)
}

func install(ctx context.Context, p *proof) error {
	if err := p.put(ctx, p.deb, "/root/berth.deb"); err != nil {
		return err
	}
	if _, err := p.sh(ctx, "DEBIAN_FRONTEND=noninteractive apt-get install -y /root/berth.deb"); err != nil {
		return err
	}
	if err := p.expect(ctx, "ActiveState=active", "systemctl show -p ActiveState berthd"); err != nil {
		return err
	}
	if err := p.expect(ctx, "660 root berth", "stat -c '%%a %%U %%G' /run/berth/berth.sock"); err != nil {
		return err
	}
	return p.eventually(ctx, minute, "ok", "curl -fsS 127.0.0.1:7180/readyz && echo ok")
}

func verifyUnits(ctx context.Context, p *proof) error {
	out, err := p.sh(ctx, "systemd-analyze verify --man=no berthd.service berthd.socket berth-containerd.service berth-guard.service 2>&1 | grep -i berth || true")
	if err == nil && out != "" {
		err = errors.New(out)
	}
	return err
}

// doctor ends with 0 when no check fails; warnings are about this host's age.
func doctor(ctx context.Context, p *proof) error {
	return p.expect(ctx, "berthd", "berth doctor")
}

// simulate gives the host GPUs, by a drop-in as an operator would.
const simulate = `
mkdir -p /etc/systemd/system/berthd.service.d
printf '[Service]\nEnvironment=BERTH_SIMULATE_GPUS=A100-SXM4-80GB:8 BERTH_RESERVE_STORAGE_MIB=512 BERTH_RESERVE_MEMORY_MIB=256\n' > /etc/systemd/system/berthd.service.d/gpus.conf
systemctl daemon-reload
systemctl restart berthd
sync`

func runBox(ctx context.Context, p *proof) error {
	archive, err := demoImage(ctx, p.dir)
	if err != nil {
		return err
	}
	if err := p.put(ctx, archive, "/root/demo.tar"); err != nil {
		return err
	}
	for _, script := range []string{
		simulate,
		"timeout 60 bash -c 'until berth image import /root/demo.tar; do sleep 0.5; done'",
		`cat > /root/demo.json <<E
{"name": "demo", "image": "demo:latest", "kind": "interactive", "stop_grace_seconds": 2, "volume_path": "/data", "restart_policy": {"mode": "on-loss"}}
E
cat > /root/hog.json <<E
{"name": "hog", "image": "demo:latest", "command": ["/bin/workload", "allocate", "512"], "kind": "job", "stop_grace_seconds": 2}
E
berth template create -f /root/demo.json
berth template create -f /root/hog.json`,
		"berth instance create box --template demo --gpus 1 --gpu-type a100 --cpus 1 --memory 256MiB --storage 64MiB --wait --timeout 60s",
	} {
		if _, err := p.sh(ctx, "%s", script); err != nil {
			return err
		}
	}
	p.pid, err = p.containerPID(ctx, "box")
	return err
}

// cgroupOf prints files of a container's cgroup.
const cgroupOf = `cd /sys/fs/cgroup$(sed 's/^0:://' /proc/%s/cgroup); for f in cpu.max memory.max memory.swap.max pids.max; do echo "$f $(cat $f 2>/dev/null)"; done`

func limits(ctx context.Context, p *proof) error {
	out, err := p.sh(ctx, cgroupOf, p.pid)
	if err != nil {
		return err
	}
	const want = "cpu.max 100000 100000\nmemory.max 268435456\nmemory.swap.max 0\npids.max 4096"
	if out != want {
		return fmt.Errorf("the cgroup has\n%s\nnot\n%s", out, want)
	}
	return p.expect(ctx, "berth", "sed 's/^0:://' /proc/%s/cgroup", p.pid)
}

// devices looks from inside: the assigned GPU has no driver behind it (ENXIO), any
// other is refused by the cgroup (EPERM).
func devices(ctx context.Context, p *proof) error {
	const look = `own=$(nsenter -t %[1]s -m -- sh -c 'echo /dev/nvidia[0-9]*'); minor=${own#/dev/nvidia}; other=$(( (minor + 1) %% 8 ))
nsenter -t %[1]s -m -- mknod -m 666 /tmp/other c 195 $other 2>/dev/null || true
cg=/sys/fs/cgroup$(sed 's/^0:://' /proc/%[1]s/cgroup)
sh -c 'echo $$ > '$cg'/cgroup.procs; exec nsenter -t %[1]s -m -- sh -c "cat '$own'; cat /tmp/other"' 2>&1 || true`
	out, err := p.sh(ctx, look, p.pid)
	if err != nil {
		return err
	}
	for _, want := range []string{"No such device or address", "Operation not permitted"} {
		if !strings.Contains(out, want) {
			return fmt.Errorf("opening the GPUs says %q, without %q", out, want)
		}
	}
	return nil
}

func daemonReload(ctx context.Context, p *proof) error {
	if _, err := p.sh(ctx, "systemctl daemon-reload; systemctl daemon-reexec; systemctl daemon-reload"); err != nil {
		return err
	}
	return errors.Join(limits(ctx, p), devices(ctx, p), p.sameContainer(ctx))
}

func outOfMemory(ctx context.Context, p *proof) error {
	if _, err := p.sh(ctx, "berth instance create hog --template hog --memory 64MiB --storage 64MiB"); err != nil {
		return err
	}
	if err := p.eventually(ctx, minute, "oom_killed", "berth instance get hog -o json"); err != nil {
		return err
	}
	_, err := p.sh(ctx, "berth instance rm hog --yes --wait --timeout 60s")
	return err
}

func watchdog(ctx context.Context, p *proof) error {
	const hang = `printf '[Service]\nWatchdogSec=6s\n' > /etc/systemd/system/berthd.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart berthd
before=$(systemctl show -p NRestarts --value berthd)
kill -STOP $(systemctl show -p MainPID --value berthd)
timeout 60 bash -c "until [ \$(systemctl show -p NRestarts --value berthd) -gt $before ] && systemctl is-active --quiet berthd; do sleep 0.3; done"
rm /etc/systemd/system/berthd.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart berthd
sync`
	if _, err := p.sh(ctx, hang); err != nil {
		return err
	}
	return p.sameContainer(ctx)
}

func activation(ctx context.Context, p *proof) error {
	const stopped = `systemctl stop berthd.service; systemctl is-active berthd.service || true; kill -0 %s && echo alive`
	if err := p.expect(ctx, "inactive\nalive", stopped, p.pid); err != nil {
		return err
	}
	if _, err := p.sh(ctx, "berth status"); err != nil {
		return err
	}
	if err := p.expect(ctx, "active", "systemctl is-active berthd.service"); err != nil {
		return err
	}
	return p.sameContainer(ctx)
}

// guardAlone gives the guard a deadline 8 s away and restarts it meanwhile.
func guardAlone(ctx context.Context, p *proof) error {
	if err := p.expect(ctx, `"locked":true,"oom":true,"cgroup":"/berth-guard.service"}`, "%s", askGuard+`ask '{"op":"status"}'`); err != nil {
		return err
	}
	const alone = askGuard + `systemctl stop berthd.socket berthd.service
mkdir /sys/fs/cgroup/due
sh -c 'echo $$ > /sys/fs/cgroup/due/cgroup.procs; trap "" TERM; while :; do sleep 1; done' >/dev/null 2>&1 &
ask "{\"op\":\"set\",\"deadline\":{\"run\":\"due\",\"boot_id\":\"$(cat /proc/sys/kernel/random/boot_id)\",\"kill_ms\":$(( $(cut -d. -f1 /proc/uptime) * 1000 + 8000 )),\"cgroups\":[\"/sys/fs/cgroup/due\"]}}"
systemctl restart berth-guard
timeout 30 bash -c 'while grep -q . /sys/fs/cgroup/due/cgroup.procs; do sleep 0.1; done'
ask '{"op":"list"}'
ask '{"op":"clear","run":"due"}'
rmdir /sys/fs/cgroup/due
systemctl start berthd.socket berthd.service`
	if err := p.expect(ctx, `"killed_ms"`, "%s", alone); err != nil {
		return err
	}
	return p.sameContainer(ctx)
}

// askGuard speaks to the guard as curl can: a line each way.
const askGuard = `ask() { printf '%s\n' "$1" | curl -sN -m 2 --unix-socket /run/berth/guard/guard.sock telnet://guard || [ $? = 28 ]; }
`

// upgrade installs the same files under a higher version.
func upgrade(ctx context.Context, p *proof) error {
	const next = `cd /root; rm -rf next; dpkg-deb -R berth.deb next
sed -i 's/^Version: .*/Version: 9999.0/' next/DEBIAN/control
dpkg-deb -Zgzip -z1 --build next next.deb >/dev/null
old=$(systemctl show -p MainPID --value berthd)
DEBIAN_FRONTEND=noninteractive apt-get install -y /root/next.deb
new=$(systemctl show -p MainPID --value berthd)
[ $old != $new ] && dpkg-query -W -f '${Version}' berth`
	if err := p.expect(ctx, "9999.0", "%s", next); err != nil {
		return err
	}
	return p.sameContainer(ctx)
}

func reboot(ctx context.Context, p *proof) error {
	before, err := p.instance(ctx, "box", "run")
	if err != nil {
		return err
	}
	if _, err := p.sh(ctx, "nsenter -t %s -m -- sh -c 'echo kept > /data/file; sync'; systemctl reboot", p.pid); err != nil && p.client == nil {
		return err
	}
	if err := errors.Join(p.off(ctx), p.boot(ctx)); err != nil {
		return err
	}
	if err := p.runsAnew(ctx, "box", before); err != nil {
		return err
	}
	if p.pid, err = p.containerPID(ctx, "box"); err != nil {
		return err
	}
	return p.expect(ctx, "kept", "nsenter -t %s -m -- cat /data/file", p.pid)
}

// powerCut kills the machine in the middle of writes; what was acknowledged until
// then has to be there.
func powerCut(ctx context.Context, p *proof) error {
	before, err := p.instance(ctx, "box", "run")
	if err != nil {
		return err
	}
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; writing.Err() == nil; n++ {
			script := fmt.Sprintf(`printf '{"name": "t%d", "image": "demo:latest"}' > /root/t.json; berth template create -f /root/t.json >/dev/null`, n)
			if _, err := p.sh(writing, "%s", script); err != nil {
				return
			}
			p.acked = n
		}
	}()
	select {
	case <-time.After(8 * time.Second):
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	_ = p.qemu.Process.Kill()
	<-done
	p.cut()
	if p.acked == 0 {
		return errors.New("no write was acknowledged before the cut")
	}
	if err := p.boot(ctx); err != nil {
		return err
	}
	if err := p.eventually(ctx, minute, "t1", "berth template ls -o name"); err != nil {
		return err
	}
	for n := 1; n <= p.acked; n++ {
		if _, err := p.sh(ctx, "berth template get t%d -o name", n); err != nil {
			return fmt.Errorf("of %d acknowledged writes: %w", p.acked, err)
		}
	}
	say("%d acknowledged writes are there", p.acked)
	return p.runsAnew(ctx, "box", before)
}

func remove(ctx context.Context, p *proof) error {
	pid, err := p.containerPID(ctx, "box")
	if err != nil {
		return err
	}
	p.pid = pid
	if _, err := p.sh(ctx, "DEBIAN_FRONTEND=noninteractive apt-get remove -y berth"); err != nil {
		return err
	}
	return p.expect(ctx, "there", "test -s /var/lib/berth/raft/raft.db && test -e /etc/berth/berthd.toml && kill -0 %s && ! command -v berthd && echo there", p.pid)
}

func purge(ctx context.Context, p *proof) error {
	if _, err := p.sh(ctx, "DEBIAN_FRONTEND=noninteractive apt-get purge -y berth"); err != nil {
		return err
	}
	const left = `ls -d /var/lib/berth /etc/berth/berthd.toml /run/berth 2>/dev/null || true
ctr -n berth containers ls -q; ctr -n berth snapshots ls | tail -n +2; grep -h berth /proc/mounts || true
kill -0 %s 2>/dev/null && echo the container lives || true
systemctl is-active --quiet berth-guard && echo the guard lives || true
ip -o link show type bridge | grep berth || true
nft list tables | grep berth || true; iptables -S | grep BERTH || true`
	out, err := p.sh(ctx, left, p.pid)
	if err == nil && out != "" {
		err = fmt.Errorf("left after purge:\n%s", out)
	}
	return err
}

// ownContainerd installs once more, on a host whose containerd is switched off.
func ownContainerd(ctx context.Context, p *proof) error {
	const again = `systemctl disable --now containerd; rm -f /run/containerd/containerd.sock; rm -f /etc/systemd/system/berthd.service.d/*.conf
DEBIAN_FRONTEND=noninteractive apt-get install -y /root/berth.deb`
	if _, err := p.sh(ctx, "%s", again); err != nil {
		return err
	}
	if err := p.eventually(ctx, minute, "ok", "curl -fsS 127.0.0.1:7180/readyz && echo ok"); err != nil {
		return err
	}
	if err := p.expect(ctx, "active", "systemctl is-active berth-containerd"); err != nil {
		return err
	}
	return p.expect(ctx, "same", `before=$(systemctl show -p MainPID --value berth-containerd); systemctl restart berthd
[ $before = $(systemctl show -p MainPID --value berth-containerd) ] && echo same`)
}
