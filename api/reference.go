package api

import (
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

// pin finds what an image's name means now, among what the nodes report.
func (r *reader) pin(image string) (string, error) {
	name, tag, digest := canonicalReference(image)
	var looked []string
	for n := range r.Nodes() {
		looked = append(looked, n.Name)
		for _, has := range n.Images {
			hasName, hasTag, _ := canonicalReference(has.Reference)
			if digest != "" && has.Digest == digest || digest == "" && hasName == name && hasTag == tag {
				return has.Digest, nil
			}
		}
	}
	where := "no node has reported yet"
	if len(looked) > 0 {
		where = "looked among the images of " + strings.Join(looked, ", ")
	}
	return "", workspace.InvalidField("template.image", "image %q is on no node (%s): berth image import FILE brings it there", image, where)
}

// repin is pin for an instance that exists. What a running one runs is settled;
// a name that is gone leaves the digest that it had, as long as a node has that.
func (r *reader) repin(inst *workspace.Instance) (string, error) {
	digest, err := r.pin(inst.Spec.Image)
	if err == nil || inst.Desired == workspace.DesiredRunning && inst.Status != workspace.StatusFailed {
		return digest, nil
	}
	if _, gone := r.pin("@" + inst.Spec.ImageDigest); gone == nil {
		return "", nil
	}
	return "", err
}
