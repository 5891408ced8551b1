package agent

import "context"

// ImageGC says when images that nothing uses are removed. Percentages are of the
// disk that they are on.
type ImageGC struct {
	High int      // above it, some are removed; 0: never
	Low  int      // until it is at or below this
	Keep []string // references that stay, with * for anything but /
}

func (a *Agent) removeImages(context.Context) {}
