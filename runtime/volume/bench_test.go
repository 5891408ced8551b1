package volume_test

import (
	"testing"

	"berth/runtime"
)

// Goals: 20 ms each.

func BenchmarkCreate(b *testing.B) {
	f := openBench(b)
	for b.Loop() {
		f.mustMount("vol", 10240)
		b.StopTimer()
		f.mustRemove("vol")
		b.StartTimer()
	}
}

func BenchmarkMount(b *testing.B) {
	f := openBench(b)
	f.mustMount("vol", 10240)
	for b.Loop() {
		b.StopTimer()
		f.mustUnmount("vol")
		b.StartTimer()
		f.mustMount("vol", 10240)
	}
	b.StopTimer()
	f.mustRemove("vol")
}

// BenchmarkMountMounted is what each start of a run pays at least.
func BenchmarkMountMounted(b *testing.B) {
	f := openBench(b)
	spec := runtime.VolumeSpec{ID: "vol", SizeMiB: 10240}
	for b.Loop() {
		if _, err := f.Mount(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
	}
	f.mustRemove("vol")
}

func BenchmarkUnmount(b *testing.B) {
	f := openBench(b)
	for b.Loop() {
		b.StopTimer()
		f.mustMount("vol", 10240)
		b.StartTimer()
		f.mustUnmount("vol")
	}
	b.StopTimer()
	f.mustRemove("vol")
}
