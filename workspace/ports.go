package workspace

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// validatePorts checks a template's ports and probe as far as that can be done
// before values are known.
func (t *Template) validatePorts() error {
	for _, p := range t.Ports {
		if err := p.validatePath(); err != nil {
			return err
		}
	}
	p := t.Probe
	switch {
	case p == nil:
		return nil
	case p.Timeout < 0 || p.Timeout > MaxProbeTimeout:
		return InvalidField("probe.timeout_seconds", "%d is outside 0 to %d", p.Timeout, MaxProbeTimeout)
	case p.HTTPPath != "" && !strings.HasPrefix(p.HTTPPath, "/"):
		return InvalidField("probe.http_path", "%q must begin with /", p.HTTPPath)
	case p.Port == "" && len(t.Ports) == 0:
		return InvalidField("probe.port", "is required: the template has no ports")
	case p.Port == "" || placeholder.MatchString(p.Port) || t.port(p.Port) != nil:
		return nil
	}
	return validatePort("probe.port", p.Port)
}

func (t *Template) port(name string) *Port {
	i := slices.IndexFunc(t.Ports, func(p Port) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Ports[i]
}

func (p *Port) validatePath() error {
	switch {
	case p.Path == "":
		return nil
	case p.Protocol != "HTTP" && p.Protocol != "HTTPS":
		return InvalidField("ports."+p.Name, "has a path, which only protocols HTTP and HTTPS have, not %s", p.Protocol)
	case !strings.HasPrefix(p.Path, "/"):
		return InvalidField("ports."+p.Name, "the path %q must begin with /", p.Path)
	}
	return validateName("ports."+p.Name, p.Path, MaxText)
}

// validatePorts checks what values have made of the ports and the probe.
func (s *RunSpec) validatePorts() error {
	for _, p := range s.Ports {
		if err := cmp.Or(validatePort("ports."+p.Name, p.Number), p.validatePath()); err != nil {
			return err
		}
	}
	if s.Probe != nil {
		return validatePort("probe.port", s.Probe.Port)
	}
	return nil
}

func validatePort(field, number string) error {
	if n, err := strconv.Atoi(number); err != nil || n < 1 || n > 65535 {
		return InvalidField(field, "%q is not a port: a number from 1 to 65535", number)
	}
	return nil
}

// fillProbe renders the probe; its port becomes a number of those of the spec.
func (t *Template) fillProbe(values map[string]string, ports []Port) *Probe {
	if t.Probe == nil {
		return nil
	}
	p := *t.Probe
	p.HTTPPath, p.Port = Expand(p.HTTPPath, values), Expand(p.Port, values)
	for _, port := range ports {
		if p.Port == "" || p.Port == port.Name {
			p.Port = port.Number
			break
		}
	}
	return &p
}
