package network

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// cpu is what this process and the programs it ran have used.
func cpu(b *testing.B) (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		if err := unix.Getrusage(who, &usage); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return sum
}

func perOp(b *testing.B, before time.Duration) {
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

func BenchmarkAttachDetach(b *testing.B) {
	n := newNetworks(b, nil)
	var attach time.Duration
	before := cpu(b)
	for b.Loop() {
		started := time.Now()
		if _, err := n.Attach(b.Context(), runtime.NetworkSpec{ID: "a", Ports: []runtime.PublishedPort{local(31001, 80)}}); err != nil {
			b.Fatal(err)
		}
		attach += time.Since(started)
		if err := n.Detach(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
	perOp(b, before)
	b.ReportMetric(float64(attach.Microseconds())/1000/float64(b.N), "attach-ms/op")
}

// Repair when all is well, with as many attachments as a large host has.
func BenchmarkRepair(b *testing.B) {
	n := newNetworks(b, nil)
	for i := range 32 {
		spec := runtime.NetworkSpec{ID: fmt.Sprintf("n%d", i), Ports: []runtime.PublishedPort{local(31000+i, 80)}}
		if _, err := n.Attach(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := n.Repair(b.Context()); err != nil {
		b.Fatal(err)
	}
	before := cpu(b)
	for b.Loop() {
		if missing, err := n.Repair(b.Context()); len(missing) > 0 || err != nil {
			b.Fatal(missing, err)
		}
	}
	perOp(b, before)
}
