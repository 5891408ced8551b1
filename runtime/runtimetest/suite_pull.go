package runtimetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/runtime"
)

// pulls runs the tests of registries, which start and end without images. They
// are left out for a Host that offers none.
func (s *suite) pulls(t *testing.T) {
	if s.Offer == nil {
		return
	}
	for _, test := range []struct {
		name string
		run  func(*suite, *testing.T)
	}{
		{"pull", (*suite).pull},
		{"pull what is here", (*suite).pullAgain},
		{"pull a digest", (*suite).pullDigest},
		{"pull with a login", (*suite).pullLogin},
		{"pull what can't be", (*suite).pullRefused},
		{"pull twice at once", (*suite).pullTwice},
		{"pull and give up", (*suite).pullGivesUp},
		{"disk of the images", (*suite).imageDisk},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(s, t)
			s.wantImages(t)
		})
	}
}

func (s *suite) mustPull(t *testing.T, source runtime.ImageSource, progress func(runtime.PullProgress)) runtime.Image {
	t.Helper()
	image, err := s.Runtime.Pull(t.Context(), source, progress)
	if err != nil {
		t.Fatalf("Pull: %v", err)
	}
	return image
}

func (s *suite) mustRemove(t *testing.T, reference string) {
	t.Helper()
	if err := s.Runtime.RemoveImage(context.Background(), reference); err != nil {
		t.Errorf("RemoveImage: %v", err)
	}
}

func (s *suite) pull(t *testing.T) {
	reference := s.Offer(t, Remote{Reference: "lab/train:1"})
	source := runtime.ImageSource{Reference: reference}
	digest, err := s.Runtime.Resolve(t.Context(), source)
	if err != nil || !strings.HasPrefix(digest, "sha256:") {
		t.Fatalf("Resolve gives %q, %v", digest, err)
	}
	s.wantImages(t) // it fetches nothing
	var last runtime.PullProgress
	before := time.Now().UTC().Truncate(time.Second)
	image := s.mustPull(t, source, func(p runtime.PullProgress) {
		if p.DoneBytes < last.DoneBytes || p.DoneBytes > p.TotalBytes || p.LayersDone > p.Layers {
			t.Errorf("progress is %+v after %+v", p, last)
		}
		last = p
	})
	if image.Reference != reference || image.Digest != digest || image.Size <= 0 || image.Pulled.Before(before) || image.Pulled.After(time.Now()) {
		t.Errorf("pulled %+v, want %s of digest %s, pulled now", image, reference, digest)
	}
	if last.DoneBytes != last.TotalBytes || last.LayersDone != last.Layers || last.Layers == 0 || !last.Unpacking {
		t.Errorf("at the end progress is %+v", last)
	}
	s.wantImages(t, image)
	s.mustRemove(t, reference)
}

func (s *suite) pullAgain(t *testing.T) {
	reference := s.Offer(t, Remote{Reference: "lab/again:1"})
	first := s.mustPull(t, runtime.ImageSource{Reference: reference}, nil)
	again := s.mustPull(t, runtime.ImageSource{Reference: reference, Digest: first.Digest}, nil)
	if again.Reference != first.Reference || again.Digest != first.Digest {
		t.Errorf("pulled again: %+v, was %+v", again, first)
	}
	s.wantImages(t, again)
	s.mustRemove(t, reference)
}

func (s *suite) pullDigest(t *testing.T) {
	reference := s.Offer(t, Remote{Reference: "lab/pinned:1"})
	absent := "sha256:" + strings.Repeat("0", 64)
	for _, source := range []runtime.ImageSource{{Reference: reference, Digest: absent}, {Reference: reference + "@" + absent}} {
		_, err := s.Runtime.Resolve(t.Context(), source)
		wantError(t, "Resolve of an absent digest", err, runtime.ErrNotFound)
		_, err = s.Runtime.Pull(t.Context(), source, nil)
		wantError(t, "Pull of an absent digest", err, runtime.ErrNotFound)
	}
	now, err := s.Runtime.Resolve(t.Context(), runtime.ImageSource{Reference: reference})
	if err != nil {
		t.Fatal(err)
	}
	if image := s.mustPull(t, runtime.ImageSource{Reference: reference, Digest: now}, nil); image.Digest != now || image.Reference != reference {
		t.Errorf("pulled %+v, want digest %s", image, now)
	}
	s.mustRemove(t, reference)
}

func (s *suite) pullLogin(t *testing.T) {
	reference := s.Offer(t, Remote{Reference: "private/train:1", Username: "ada", Password: "open-sesame"})
	for name, source := range map[string]runtime.ImageSource{
		"anonymous": {Reference: reference},
		"wrong":     {Reference: reference, Username: "ada", Password: "shut-sesame"},
	} {
		_, err := s.Runtime.Resolve(t.Context(), source)
		wantError(t, name+" Resolve", err, runtime.ErrDenied)
		_, err = s.Runtime.Pull(t.Context(), source, nil)
		wantError(t, name+" Pull", err, runtime.ErrDenied)
		if err != nil && strings.Contains(err.Error(), "sesame") {
			t.Errorf("the error has the password: %v", err)
		}
		s.wantImages(t)
	}
	s.mustPull(t, runtime.ImageSource{Reference: reference, Username: "ada", Password: "open-sesame"}, nil)
	s.mustRemove(t, reference)
}

func (s *suite) pullRefused(t *testing.T) {
	offered := s.Offer(t, Remote{Reference: "lab/other:1"})
	for _, test := range []struct {
		name      string
		reference string
		want      error
	}{
		{"no reference", "Not An Image?", runtime.ErrInvalid},
		{"empty", "", runtime.ErrInvalid},
		{"absent tag", offered + "0", runtime.ErrNotFound},
		{"nothing listens", "127.0.0.1:1/lab/train:1", runtime.ErrRegistry},
		{"another architecture", s.Offer(t, Remote{Reference: "lab/arm:1", Architecture: "arm64"}), runtime.ErrPlatform},
		{"damaged", s.Offer(t, Remote{Reference: "lab/damaged:1", Damaged: true}), runtime.ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			calls := 0
			image, err := s.Runtime.Pull(t.Context(), runtime.ImageSource{Reference: test.reference}, func(runtime.PullProgress) { calls++ })
			wantError(t, "Pull", err, test.want)
			if image != (runtime.Image{}) {
				t.Errorf("and gives %+v", image)
			}
			s.wantImages(t)
		})
	}
}

func (s *suite) pullTwice(t *testing.T) {
	reference := s.Offer(t, Remote{Reference: "lab/twice:1"})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			if _, err := s.Runtime.Pull(t.Context(), runtime.ImageSource{Reference: reference}, nil); err != nil {
				t.Errorf("Pull: %v", err)
			}
		})
	}
	group.Wait()
	s.mustRemove(t, reference)
}

func (s *suite) pullGivesUp(t *testing.T) {
	reference := s.Offer(t, Remote{Reference: "lab/cancelled:1"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Runtime.Pull(ctx, runtime.ImageSource{Reference: reference}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Pull with a cancelled context: %v", err)
	}
	if _, err := s.Runtime.Resolve(ctx, runtime.ImageSource{Reference: reference}); !errors.Is(err, context.Canceled) {
		t.Errorf("Resolve with a cancelled context: %v", err)
	}
}

func (s *suite) imageDisk(t *testing.T) {
	use, err := s.Runtime.ImageDisk(t.Context())
	if err != nil || use.Used <= 0 || use.Total < use.Used {
		t.Errorf("ImageDisk gives %+v, %v", use, err)
	}
}
