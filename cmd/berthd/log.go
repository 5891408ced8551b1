package main

import (
	"io"
	"log/slog"
)

// newLog makes the daemon's log: logfmt-like text or JSON, one line an event,
// keys as in docs (ts level msg component node …).
func newLog(c Config, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // validated with the config
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			a.Key = "ts"
			a.Value = slog.TimeValue(a.Value.Time().UTC())
		}
		return a
	}}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
