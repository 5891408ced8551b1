package guard

import (
	"context"
	"errors"
	"time"
)

const (
	// nap bounds how long one moment is waited for at once: timers stand still
	// while the host sleeps, the boot clock doesn't.
	nap = time.Second
	// noticeWait is how long a notice may delay the signal it is about; its
	// file system may hang.
	noticeWait = 200 * time.Millisecond

	firstRetry = 2 * time.Millisecond // after a SIGKILL, and twice that each time
	lastRetry  = 100 * time.Millisecond
	// emptyCheck is how often an empty cgroup is looked at again, for as long as
	// it exists: who was about to start a process in it may have been late.
	emptyCheck = time.Second
	goneCheck  = time.Minute
)

// follow sees to one entry until ctx ends or nobody needs it any more.
func (b *book) follow(ctx context.Context, w *watch) {
	retry := firstRetry
	for {
		e, due, wait := b.due(w)
		rest := min(nap, time.Duration(wait)*time.Millisecond)
		switch due {
		case actTerm:
			b.term(w, &e)
			continue
		case actForget:
			_ = b.clear(e.Run) // which notes its error
			return
		case actKill:
			rest, retry = b.kill(w, &e, retry)
		}
		timer := time.NewTimer(rest)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-w.changed:
			timer.Stop()
			retry = firstRetry
		case <-timer.C:
		}
	}
}

// due says what to do now. It is noted here, before it is done and with the
// decision in one: a deadline that comes later can't undo it, and is told.
func (b *book) due(w *watch) (e Entry, due action, wait int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	due, wait = step(&w.entry, now)
	switch {
	case due == actTerm:
		w.entry.Termed = now
		b.soil(w.entry.Run)
	case due == actKill && w.entry.Killed == 0:
		w.entry.Killed = now
		b.soil(w.entry.Run)
		b.log.Info("a run's end has come; its processes are killed", "run", w.entry.Run, "late_ms", now-w.entry.Kill)
	}
	return w.entry, due, wait
}

func (b *book) term(w *watch, e *Entry) {
	b.log.Info("a run ends soon; its first process is asked to end", "run", e.Run, "pid", e.Pid, "left_ms", e.Kill-b.now())
	err := b.notice(e)
	if e.Pid != 0 {
		err = errors.Join(err, b.host.term(&e.Deadline))
	}
	b.note(w, err)
}

// notice writes the notice in a goroutine that nobody waits for long.
func (b *book) notice(e *Entry) error {
	if e.Notice == "" {
		return nil
	}
	written := make(chan error, 1)
	go func() { written <- b.host.notice(e.Notice, e.NoticeText) }()
	timer := time.NewTimer(noticeWait)
	defer timer.Stop()
	select {
	case err := <-written:
		return err
	case <-timer.C:
		return errors.New("the notice " + e.Notice + " isn't written yet: its file system hangs")
	}
}

// kill makes one attempt, and says how long to rest until the next.
func (b *book) kill(w *watch, e *Entry, retry time.Duration) (rest, next time.Duration) {
	left, err := b.host.kill(e.Cgroups)
	b.note(w, err)
	if left == remainsSome {
		b.empty(w, false)
		return retry, min(2*retry, lastRetry)
	}
	b.empty(w, true)
	if left == remainsGone {
		return goneCheck, firstRetry
	}
	return emptyCheck, firstRetry
}

// empty notes whether the run's processes are gone. When some come to life again
// the moment is taken back.
func (b *book) empty(w *watch, is bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if is == (w.entry.Emptied != 0) {
		return
	}
	w.entry.Emptied = 0
	if is {
		w.entry.Emptied = b.now()
		b.log.Info("no process of the run is left", "run", w.entry.Run, "took_ms", w.entry.Emptied-w.entry.Killed)
	}
	b.soil(w.entry.Run)
}

// note keeps an entry's last error for those who ask, and logs it once.
func (b *book) note(w *watch, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if text == w.entry.Error {
		return
	}
	w.entry.Error = text
	b.soil(w.entry.Run)
	if err != nil {
		b.lastError = "run " + w.entry.Run + ": " + text
		b.log.Error("a run's processes can't be ended as they should", "run", w.entry.Run, "err", err)
	}
}
