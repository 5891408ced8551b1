package api

import (
	"context"
	"strings"

	"berth/workspace"
)

// canonicalReference makes the forms of one image's name alike: "demo",
// "demo:latest" and "docker.io/library/demo" are the same.
func canonicalReference(ref string) (name, tag, digest string) {
	name, digest, _ = strings.Cut(ref, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, tag = name[:colon], name[colon+1:]
	}
	for _, implied := range []string{"docker.io/", "index.docker.io/"} {
		name = strings.TrimPrefix(name, implied)
	}
	name = strings.TrimPrefix(name, "library/")
	if tag == "" && digest == "" {
		tag = "latest"
	}
	return name, tag, digest
}

// pin finds what an image's name means now: among what the nodes report, else
// in its registry.
func (a *API) pin(ctx context.Context, r *reader, image string) (string, error) {
	if digest := r.pinned(image); digest != "" {
		return digest, nil
	}
	digest, err := a.resolve(ctx, r, image)
	switch {
	case err == nil:
		return digest, nil
	case ctx.Err() != nil:
		return "", ctx.Err()
	}
	registry := workspace.RegistryOf(image)
	return "", workspace.InvalidField("template.image",
		"image %q is on no node (%s), nor does registry %s give it (%s): berth image import FILE brings it to a node, berth registry login %s logs in to the registry",
		image, r.looked(), registry, problemOf(err).Detail, registry)
}

// pinned is the digest of an image that a node has, empty when none has it.
func (r *reader) pinned(image string) string {
	name, tag, digest := canonicalReference(image)
	for n := range r.Nodes() {
		for _, has := range n.Images {
			hasName, hasTag, _ := canonicalReference(has.Reference)
			if digest != "" && has.Digest == digest || digest == "" && hasName == name && hasTag == tag {
				return has.Digest
			}
		}
	}
	return ""
}

// looked says where pinned has looked.
func (r *reader) looked() string {
	var names []string
	for n := range r.Nodes() {
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return "no node has reported yet"
	}
	return "looked among the images of " + strings.Join(names, ", ")
}

// repin is pin for an instance that exists. What a running one runs is settled;
// a name that is gone leaves the digest that it had, as long as a node has that.
func (a *API) repin(ctx context.Context, r *reader, inst *workspace.Instance) (string, error) {
	digest := r.pinned(inst.Spec.Image)
	settled := inst.Desired == workspace.DesiredRunning && inst.Status != workspace.StatusFailed
	if digest != "" || settled || inst.Spec.ImageDigest != "" && r.pinned("@"+inst.Spec.ImageDigest) != "" {
		return digest, nil
	}
	return a.pin(ctx, r, inst.Spec.Image)
}
