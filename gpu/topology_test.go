package gpu

import "testing"

func TestScoreOrdersLinks(t *testing.T) {
	farthestFirst := []Link{
		{PCIe: LinkSystem}, {PCIe: LinkCPU}, {PCIe: LinkHostBridge}, {PCIe: LinkMultiSwitch},
		{PCIe: LinkSwitch}, {PCIe: LinkBoard}, {NVLink: 1, PCIe: LinkSystem},
		{NVLink: 1, PCIe: LinkBoard}, {NVLink: 2, PCIe: LinkSystem}, {NVLink: 18, PCIe: LinkSystem},
	}
	for i := 1; i < len(farthestFirst); i++ {
		if near, far := farthestFirst[i], farthestFirst[i-1]; near.Score() <= far.Score() {
			t.Errorf("%+v scores %d, not more than %+v with %d", near, near.Score(), far, far.Score())
		}
	}
	if got := (Link{NVLink: 2, PCIe: LinkHostBridge}).Score(); got != 230 {
		t.Errorf("two NVLinks and a host bridge score %d, want 230", got)
	}
	if got := (Link{PCIe: "new level"}).Score(); got != (Link{}).Score() {
		t.Errorf("an unknown level scores %d, want that of the farthest, %d", got, (Link{}).Score())
	}
}
