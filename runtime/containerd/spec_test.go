package containerd

import (
	"errors"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/runtime"
)

func TestValidate(t *testing.T) {
	good := runtime.Spec{ID: "a", Mounts: []runtime.Mount{{Source: "/x", Target: "/home/me"}, {Source: "/x", Target: "/process"}}, NetNS: "/run/netns/a"}
	if err := validate(good); err != nil {
		t.Error(err)
	}
	for _, target := range []string{"/", "/proc", "/data/../proc/sys", "/sys/fs", "/dev", "/dev/shm", "/.berth", "/.berth/helper", "//.berth/x", "relative"} {
		if err := validate(runtime.Spec{ID: "a", Mounts: []runtime.Mount{{Source: "/x", Target: target}}}); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("mount on %q: %v", target, err)
		}
	}
	for _, bad := range []runtime.Spec{{ID: "a", NetNS: "run/netns/a"}, {ID: "a", LogPath: "log"}, {ID: "a", Env: []string{"x"}}, {}} {
		if err := validate(bad); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestDriverPath(t *testing.T) {
	for _, test := range []struct {
		mounts []string
		want   bool
	}{
		{[]string{"/data", "/.berth/driver/libcuda.so.1"}, true},
		{[]string{"/.berth/driver"}, true},
		{[]string{"/.berth/helper", "/.berth/driver2"}, false},
		{nil, false},
	} {
		var mounts []specs.Mount
		for _, target := range test.mounts {
			mounts = append(mounts, specs.Mount{Destination: target})
		}
		if got := hasDriver(mounts); got != test.want {
			t.Errorf("mounts %q: %t", test.mounts, got)
		}
	}
	for _, test := range []struct{ env, want []string }{
		{nil, []string{"LD_LIBRARY_PATH=/.berth/driver"}},
		{[]string{"A=1", "LD_LIBRARY_PATH="}, []string{"A=1", "LD_LIBRARY_PATH=/.berth/driver"}},
		{[]string{"LD_LIBRARY_PATH=/a:/b"}, []string{"LD_LIBRARY_PATH=/.berth/driver:/a:/b"}},
		{[]string{"LD_LIBRARY_PATH=/.berth/driver:/a"}, []string{"LD_LIBRARY_PATH=/.berth/driver:/a"}},
	} {
		if got := findDriver(test.env); !slices.Equal(got, test.want) {
			t.Errorf("%q became %q, want %q", test.env, got, test.want)
		}
	}
}
