package containerd

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/runtime"
	"berth/test/image/ociarchive"
)

// BenchmarkCreateStart compares this package with plain calls of containerd's
// client that make a container of the same spec. Medians, in milliseconds.
func BenchmarkCreateStart(b *testing.B) {
	for _, way := range []struct {
		name string
		run  func(*testing.B, *Runtime, runtime.Spec) (create, start time.Duration)
	}{{"berth", throughRuntime}, {"client", throughClient}} {
		b.Run(way.name, func(b *testing.B) {
			r := benchRuntime(b)
			var creates, starts []time.Duration
			for i := 0; b.Loop(); i++ {
				spec := runtime.Spec{
					ID: fmt.Sprintf("bench-%s-%d", way.name, i), Image: demo, LogPath: filepath.Join(b.TempDir(), "log"),
					Limits: runtime.Limits{CPUMilli: 1000, MemoryMiB: 64},
				}
				create, start := way.run(b, r, spec)
				creates, starts = append(creates, create), append(starts, start)
				b.StopTimer()
				if err := r.cgroups.kill(context.Background(), r.newCgroup(spec.ID)); err != nil {
					b.Fatal(err)
				}
				if err := r.Delete(context.Background(), spec.ID); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(median(creates), "create-ms")
			b.ReportMetric(median(starts), "start-ms")
		})
	}
}

func benchRuntime(b *testing.B) *Runtime {
	r := shared.open(b)
	if _, err := r.Import(b.Context(), bytes.NewReader(demoArchive(b, ociarchive.Options{})), demo); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.RemoveImage(context.Background(), demo); err != nil {
			b.Error(err)
		}
	})
	return r
}

func median(times []time.Duration) float64 {
	slices.Sort(times)
	return times[len(times)/2].Seconds() * 1000
}

func throughRuntime(b *testing.B, r *Runtime, spec runtime.Spec) (create, start time.Duration) {
	begin := time.Now()
	if _, err := r.Create(b.Context(), spec); err != nil {
		b.Fatal(err)
	}
	created := time.Now()
	if _, err := r.Start(b.Context(), spec.ID); err != nil {
		b.Fatal(err)
	}
	return created.Sub(begin), time.Since(created)
}

func throughClient(b *testing.B, r *Runtime, spec runtime.Spec) (create, start time.Duration) {
	ctx := b.Context()
	_, details, err := r.image(ctx, demo, "")
	if err != nil {
		b.Fatal(err)
	}
	same, err := r.ociSpec(ctx, spec, details)
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	image, err := r.client.GetImage(ctx, demo)
	if err != nil {
		b.Fatal(err)
	}
	container, err := r.client.NewContainer(ctx, spec.ID,
		client.WithImage(image),
		client.WithSnapshotter("overlayfs"),
		client.WithNewSnapshot(spec.ID, image),
		client.WithRuntime(runcRuntime, nil),
		client.WithSpec(same, func(context.Context, oci.Client, *containers.Container, *specs.Spec) error { return nil }),
	)
	if err != nil {
		b.Fatal(err)
	}
	task, err := container.NewTask(ctx, cio.BinaryIO(r.cfg.Helper, map[string]string{"log": "16777216:" + spec.LogPath}))
	if err != nil {
		b.Fatal(err)
	}
	created := time.Now()
	if err := task.Start(ctx); err != nil {
		b.Fatal(err)
	}
	return created.Sub(begin), time.Since(created)
}
