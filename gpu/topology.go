package gpu

// linkScore is what closeness over PCIe is worth to placement
// (docs/domain.md, topology).
var linkScore = map[PCIeLink]int{
	LinkBoard:       60,
	LinkSwitch:      50,
	LinkMultiSwitch: 40,
	LinkHostBridge:  30,
	LinkCPU:         20,
	LinkSystem:      10,
}

// Score says how well the two devices reach each other: 100 for each NVLink,
// plus 10 (across CPUs) to 60 (same board) for PCIe. A link of unknown
// closeness counts as the farthest, so that a driver's new level never beats a
// level we know; so does the zero Link, of two devices whose link nobody
// reported.
func (l Link) Score() int {
	score, ok := linkScore[l.PCIe]
	if !ok {
		score = linkScore[LinkSystem]
	}
	return 100*l.NVLink + score
}
