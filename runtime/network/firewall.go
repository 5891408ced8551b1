package network

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"text/template"

	"berth/runtime"
)

//go:embed rules.nft.tmpl
var rulesText string

var rulesTemplate = template.Must(template.New("rules.nft").Parse(rulesText))

// firewall is this berth's rules: an nftables table that denies and forwards, and
// a chain of iptables that lets through. A packet that one of nftables' tables
// drops is gone whatever others accept, so denials are safe in a table of ours;
// but a host whose FORWARD policy is DROP, as Docker and ufw set it, drops in
// iptables' table, and only a rule in there saves a packet from it.
type firewall struct {
	bridge string
	subnet netip.Prefix
	denied []netip.Prefix

	// Of the rules that were set last, and how the kernel shows them: a listing
	// that differs from it means that somebody changed them.
	applied, listed string
}

// published is a port of the host that leads to one of a container.
type published struct {
	runtime.PublishedPort
	Address netip.Addr
}

func newFirewall(bridge string, subnet netip.Prefix, denied []netip.Prefix) *firewall {
	return &firewall{bridge: bridge, subnet: subnet, denied: denied}
}

// table can't be a word of nft's language, whatever the bridge is called.
func (f *firewall) table() string { return "berth-" + f.bridge }

func (f *firewall) chain() string { return "BERTH-FWD-" + f.bridge }

func (f *firewall) render(records map[string]record) (string, error) {
	data := struct {
		Table, Bridge       string
		Subnet              netip.Prefix
		Denied              []netip.Prefix
		Published, Anywhere []published
	}{Table: f.table(), Bridge: f.bridge, Subnet: f.subnet, Denied: f.denied}
	for _, r := range records {
		for _, port := range r.Spec.Ports {
			if p := (published{port, r.Address}); anywhere(port) {
				data.Anywhere = append(data.Anywhere, p)
			} else {
				data.Published = append(data.Published, p)
			}
		}
	}
	for _, ports := range [][]published{data.Published, data.Anywhere} { // walks over maps have no order
		slices.SortFunc(ports, func(a, b published) int {
			return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
		})
	}
	var text strings.Builder
	err := rulesTemplate.Execute(&text, data)
	return text.String(), err
}

// apply sets all rules. It is the same whether they were there or not.
func (f *firewall) apply(ctx context.Context, records map[string]record) error {
	text, err := f.render(records)
	if err != nil {
		return err
	}
	if text != f.applied {
		f.applied, f.listed = "", ""
	}
	if _, err = run(ctx, text, "nft", "-f", "-"); err != nil {
		// What is there may be of another kind, from another version of berth.
		again := fmt.Sprintf("add table inet %[1]s\ndelete table inet %[1]s\n", f.table())
		if _, retried := run(ctx, again+text, "nft", "-f", "-"); retried != nil {
			return fmt.Errorf("set the rules of nftables' table %s: %w", f.table(), err)
		}
	}
	f.applied = text
	return nil
}

// repair sets the rules that aren't as they should be and says which.
func (f *firewall) repair(ctx context.Context, records map[string]record) (missing []string, err error) {
	text, err := f.render(records)
	if err != nil {
		return nil, err
	}
	before := f.list(ctx)
	if text == f.applied && before != "" && before == f.listed {
		return nil, nil
	}
	if err := f.apply(ctx, records); err != nil {
		return nil, err
	}
	after := f.list(ctx)
	if after == "" {
		return nil, fmt.Errorf("nftables' table %s isn't there after it was set: %w", f.table(), runtime.ErrUnavailable)
	}
	f.listed = after
	switch before {
	case after:
		return nil, nil
	case "":
		return []string{"nftables table inet " + f.table()}, nil
	}
	return []string{"rules of nftables table inet " + f.table()}, nil
}

// list gives the table as nft shows it, empty when there is none.
func (f *firewall) list(ctx context.Context) string {
	text, err := run(ctx, "", "nft", "list", "table", "inet", f.table())
	if err != nil {
		return ""
	}
	return text
}

// forwardRules are those of our chain, as iptables shows them. They accept no
// more than nftables' table means to let through, which may be gone for a while.
func (f *firewall) forwardRules() []string {
	return []string{
		fmt.Sprintf("-A %s -i %s ! -o %s -j ACCEPT", f.chain(), f.bridge, f.bridge),
		fmt.Sprintf("-A %s -o %s -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT", f.chain(), f.bridge),
	}
}

// hook makes packets of the bridge pass iptables' FORWARD chain and says whether
// they didn't.
func (f *firewall) hook(ctx context.Context) (missing []string, err error) {
	text, err := run(ctx, "", "iptables", "-w", "5", "-S")
	if err != nil {
		return nil, fmt.Errorf("list the rules of iptables: %w", err)
	}
	jump := "-A FORWARD -j " + f.chain()
	var rules []string
	jumps, first := 0, false
	dropped := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "-A "+f.chain()+" "):
			rules = append(rules, line)
		case line == jump:
			first = first || jumps == 0 && !dropped
			jumps++
		case strings.HasPrefix(line, "-A FORWARD ") && (strings.Contains(line, "-j DROP") || strings.Contains(line, "-j REJECT")):
			dropped = true
		}
	}
	if jumps == 1 && first && slices.Equal(rules, f.forwardRules()) {
		return nil, nil
	}
	restore := "*filter\n:" + f.chain() + " - [0:0]\n" + // which empties it
		strings.Repeat("-D FORWARD -j "+f.chain()+"\n", jumps) +
		strings.Join(f.forwardRules(), "\n") +
		"\n-I FORWARD 1 -j " + f.chain() + "\nCOMMIT\n"
	if _, err := run(ctx, restore, "iptables-restore", "-w", "5", "--noflush"); err != nil {
		return nil, fmt.Errorf("set chain %s of iptables: %w", f.chain(), err)
	}
	return []string{"iptables chain " + f.chain()}, nil
}

// remove takes all rules away.
func (f *firewall) remove(ctx context.Context) error {
	f.applied, f.listed = "", ""
	table := fmt.Sprintf("add table inet %[1]s\ndelete table inet %[1]s\n", f.table())
	_, errTable := run(ctx, table, "nft", "-f", "-")
	text, errChain := run(ctx, "", "iptables", "-w", "5", "-S")
	if errChain == nil && strings.Contains(text, "-N "+f.chain()+"\n") {
		jumps := strings.Count(text, "-A FORWARD -j "+f.chain()+"\n")
		restore := "*filter\n:" + f.chain() + " - [0:0]\n" +
			strings.Repeat("-D FORWARD -j "+f.chain()+"\n", jumps) + "-X " + f.chain() + "\nCOMMIT\n"
		_, errChain = run(ctx, restore, "iptables-restore", "-w", "5", "--noflush")
	}
	if err := errors.Join(errTable, errChain); err != nil {
		return fmt.Errorf("remove the rules of %s: %w", f.bridge, err)
	}
	return nil
}

// run gives what a program printed. A program that isn't there makes networks
// unavailable.
func run(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) // #nosec G204 -- nft and iptables
	cmd.Stdin = strings.NewReader(input)
	var problem bytes.Buffer
	cmd.Stderr = &problem
	output, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s isn't installed on this host, Debian's packages nftables and iptables have it: %w", name, runtime.ErrUnavailable)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(problem.String()))
	}
	return string(output), nil
}
