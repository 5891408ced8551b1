package runtimetest_test

import (
	"bytes"
	"context"
	"testing"

	"go.uber.org/goleak"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/test/image/ociarchive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFake(t *testing.T) {
	fake := runtimetest.New()
	runtimetest.Suite(t, runtimetest.Host{
		Runtime: fake,
		Reopen:  func(*testing.T) runtime.Runtime { return fake },
		Archive: func(t *testing.T, name string) []byte {
			var archive bytes.Buffer
			if err := ociarchive.Write(&archive, ociarchive.Options{Name: name}); err != nil {
				t.Fatal(err)
			}
			return archive.Bytes()
		},
		Offer: func(_ *testing.T, remote runtimetest.Remote) string {
			remote.Reference = "registry.test/" + remote.Reference
			fake.Offer(remote)
			return remote.Reference
		},
		Leftovers: func(t *testing.T) []string {
			list, err := fake.List(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, c := range list {
				left = append(left, c.ID)
			}
			return left
		},
	})
}
