package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	beAProcess() // which doesn't return when this is one
	goleak.VerifyTestMain(m)
}

const testBoot = "boot-1"

// fakeHost remembers what was done to whom, and when.
type fakeHost struct {
	now func() int64

	mu    sync.Mutex
	did   []string
	alive map[string]int // cgroup → kills until it is empty; absent: gone
	hangs chan struct{}  // kills of "/cg/hung" wait for it
	bad   error          // of every kill, while set
}

func (f *fakeHost) done(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, fmt.Sprintf("%d ", f.now())+fmt.Sprintf(format, args...))
}

func (f *fakeHost) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.did, "; ")
}

func (f *fakeHost) check(dir string) error {
	if dir == "/cg" {
		return fmt.Errorf("%w: the root", ErrInvalid)
	}
	return nil
}

func (f *fakeHost) notice(path, text string) error {
	f.done("notice %s %s", path, text)
	if path == "/hung" {
		<-f.hangs
	}
	return nil
}

func (f *fakeHost) term(d *Deadline) error {
	f.done("term %s", d.Run)
	return nil
}

func (f *fakeHost) kill(dirs []string) (remains, error) {
	if slices.Contains(dirs, "/cg/hung") {
		<-f.hangs
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bad != nil {
		return remainsSome, f.bad
	}
	left := remainsGone
	for _, dir := range dirs {
		n, ok := f.alive[dir]
		switch {
		case !ok:
			continue
		case n == 0:
			left = remainsNone
			continue
		}
		f.alive[dir]--
		f.did = append(f.did, fmt.Sprintf("%d kill %s", f.now(), filepath.Base(dir)))
		return remainsSome, nil
	}
	return left, nil
}

// bed is a book on a clock that the test drives, in a synctest bubble.
type bed struct {
	*book
	host *fakeHost
	t    *testing.T
	dir  string
	end  func()
}

func newBed(t *testing.T, dir string, began time.Time) *bed {
	t.Helper()
	now := func() int64 { return time.Since(began).Milliseconds() + 1000 }
	b := &bed{t: t, dir: dir, host: &fakeHost{now: now, alive: map[string]int{}, hangs: make(chan struct{})}}
	b.open()
	return b
}

// open begins anew with what is on the disk.
func (b *bed) open() {
	b.t.Helper()
	store, err := openStore(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	b.book = &book{bootID: testBoot, now: b.host.now, store: store, host: b.host, log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	if err := b.book.open(ctx); err != nil {
		b.t.Fatal(err)
	}
	b.end = func() {
		cancel()
		b.wait()
	}
}

func (b *bed) deadline(run string, term, kill int64) *Deadline {
	return &Deadline{Run: run, BootID: testBoot, Term: term, Kill: kill, Pid: 77, Cgroups: []string{"/cg/" + run}}
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) entry(run string) Entry {
	b.t.Helper()
	for _, e := range b.list() {
		if e.Run == run {
			return e
		}
	}
	b.t.Fatalf("no entry of %s", run)
	return Entry{}
}

func (b *bed) want(did string) {
	b.t.Helper()
	if got := b.host.log(); got != did {
		b.t.Errorf("did %q\nwant %q", got, did)
	}
}

// inBubble runs a test on a driven clock that begins at 1000 ms.
func inBubble(t *testing.T, test func(*bed)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, dir, time.Now())
		test(b)
		b.end()
	})
}

func TestTermThenKill(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.host.alive["/cg/a"] = 3
		d := b.deadline("a", 31_000, 61_000)
		d.Notice, d.NoticeText = "/n", "ends"
		b.must(b.set(d, false))
		time.Sleep(29 * time.Second)
		synctest.Wait()
		b.want("")
		time.Sleep(time.Hour)
		synctest.Wait()
		b.want("31000 notice /n ends; 31000 term a; 61000 kill a; 61002 kill a; 61006 kill a")
		if e := b.entry("a"); e.Termed != 31_000 || e.Killed != 61_000 || e.Emptied != 61_014 || e.Error != "" {
			t.Errorf("%+v", e)
		}
		// What comes to life in it is killed, for as long as the cgroup exists.
		b.host.mu.Lock()
		b.host.alive["/cg/a"] = 1
		b.host.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if e := b.entry("a"); e.Emptied < 3_600_000 || b.host.alive["/cg/a"] != 0 {
			t.Errorf("%+v, %v", e, b.host.alive)
		}
	})
}

func TestRenewAndStop(t *testing.T) {
	inBubble(t, func(b *bed) {
		for _, run := range []string{"renewed", "stopped", "cleared"} {
			b.host.alive["/cg/"+run] = 1
			b.must(b.set(b.deadline(run, 0, 5000), false))
		}
		if err := b.set(b.deadline("renewed", 0, 4999), false); !errors.Is(err, ErrEarlier) {
			t.Errorf("an earlier end: %v", err)
		}
		b.must(b.set(b.deadline("renewed", 0, 9000), false))
		b.must(b.set(b.deadline("stopped", 0, 2000), true))
		b.must(b.clear("cleared"))
		b.must(b.clear("cleared"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.want("2000 kill stopped; 9000 kill renewed")
		if err := b.set(b.deadline("renewed", 0, 99_000), false); !errors.Is(err, ErrEnded) {
			t.Errorf("a later end after the end: %v", err)
		}
		other := b.deadline("x", 0, 5)
		other.BootID = "boot-2"
		if err := b.set(other, false); !errors.Is(err, ErrOtherBoot) {
			t.Errorf("of another boot: %v", err)
		}
		other = b.deadline("x", 0, 5)
		other.Cgroups = []string{"/cg"}
		if err := b.set(other, false); !errors.Is(err, ErrInvalid) {
			t.Errorf("of a root cgroup: %v", err)
		}
		b.must(b.set(b.deadline("overdue", 0, 5), false)) // its cgroup is gone
		synctest.Wait()
		if e := b.entry("overdue"); e.Emptied != 11_000 {
			t.Errorf("%+v", e)
		}
	})
}

func TestRestart(t *testing.T) {
	inBubble(t, func(b *bed) {
		for _, run := range []string{"later", "missed", "ended"} {
			b.host.alive["/cg/"+run] = 1
		}
		b.must(b.set(b.deadline("later", 40_000, 60_000), false))
		b.must(b.set(b.deadline("missed", 10_000, 20_000), false))
		b.must(b.set(b.deadline("ended", 1500, 2000), false))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		b.want("1500 term ended; 2000 kill ended")
		before := b.entry("ended")
		b.end()
		b.must(os.WriteFile(b.store.path("torn"), []byte(`{"run":"torn"`), 0o600))
		b.must(os.WriteFile(b.store.path("half")+".new", []byte(`{`), 0o600))
		foreign := Entry{Deadline: *b.deadline("foreign", 0, 99)}
		foreign.BootID = "boot-0"
		b.must(b.store.write(&foreign))
		flipped, err := os.ReadFile(b.store.path("later"))
		b.must(err)
		b.must(os.WriteFile(b.store.path("flipped"), []byte(strings.Replace(string(flipped), "60000", "60001", 1)), 0o600))
		time.Sleep(27 * time.Second) // nobody is there at 10 000 and 20 000
		b.open()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		b.want("1500 term ended; 2000 kill ended; 31000 kill missed")
		if e := b.entry("ended"); e.Emptied != before.Emptied || e.Killed != 2000 {
			t.Errorf("before %+v, after %+v", before, e)
		}
		var runs []string
		for _, e := range b.list() {
			runs = append(runs, e.Run)
		}
		if got := strings.Join(runs, " "); got != "ended later missed" || b.store.aside() != 2 {
			t.Errorf("in force: %s; put aside: %d", got, b.store.aside())
		}
		left, _ := os.ReadDir(b.store.dir)
		if len(left) != 3 {
			t.Errorf("stored: %v", left)
		}
		s := Status{}
		if b.fill(&s); !strings.Contains(s.LastError, "damaged") {
			t.Errorf("status: %+v", s)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want("1500 term ended; 2000 kill ended; 31000 kill missed; 40000 term later; 60000 kill later")
	})
}

// TestForget: a day after its end nobody asks any more, here or on the disk.
func TestForget(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.must(b.set(b.deadline("old", 0, 2000), false))
		time.Sleep(24*time.Hour - time.Minute)
		synctest.Wait()
		b.entry("old")
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if left, _ := os.ReadDir(b.store.dir); len(b.list()) > 0 || len(left) > 0 {
			t.Errorf("left: %v, %v", b.list(), left)
		}
	})
}

// TestHung: one that hangs keeps no other waiting, nor does its notice.
func TestHung(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.host.alive["/cg/other"] = 1
		hung := b.deadline("hung", 1500, 2000)
		hung.Notice = "/hung"
		b.must(b.set(hung, false))
		b.must(b.set(b.deadline("other", 0, 2500), false))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		b.want("1500 notice /hung ; 1700 term hung; 2500 kill other")
		if e := b.entry("hung"); e.Killed != 2000 || e.Emptied != 0 || !strings.Contains(e.Error, "hangs") {
			t.Errorf("%+v", e)
		}
		close(b.host.hangs)
	})
}

// TestErrorsGoOn: what fails is tried again, and said until it is over.
func TestErrorsGoOn(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.host.alive["/cg/a"] = 1
		b.host.bad = errors.New("no")
		b.must(b.set(b.deadline("a", 0, 2000), false))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if e := b.entry("a"); e.Error != "no" || e.Emptied != 0 {
			t.Errorf("%+v", e)
		}
		b.host.mu.Lock()
		b.host.bad = nil
		b.host.mu.Unlock()
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if e := b.entry("a"); e.Error != "" || e.Emptied == 0 {
			t.Errorf("%+v", e)
		}
	})
}

// TestDiskFails: what isn't stored isn't acknowledged and not in force; what was
// goes on.
func TestDiskFails(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.host.alive["/cg/a"] = 1
		b.must(b.set(b.deadline("a", 0, 2000), false))
		b.must(os.RemoveAll(b.store.dir))
		if err := b.set(b.deadline("a", 0, 9000), false); err == nil {
			t.Error("acknowledged without a disk")
		}
		if err := b.set(b.deadline("b", 0, 9000), false); err == nil || len(b.list()) != 1 {
			t.Error("held without a disk")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.want("2000 kill a")
	})
}

func TestBounds(t *testing.T) {
	inBubble(t, func(b *bed) {
		if err := b.close(); err != nil {
			t.Error(err)
		}
		if err := b.set(b.deadline("late", 0, 9000), false); err == nil {
			t.Error("a guard that ends took a deadline")
		}
		b.closed = false
		b.mu.Lock()
		for i := range maxEntries {
			run := fmt.Sprint("r", i)
			b.watch(Entry{Deadline: *b.deadline(run, 0, 1<<40)})
		}
		b.mu.Unlock()
		if err := b.set(b.deadline("more", 0, 1<<40), false); err == nil || errors.Is(err, ErrInvalid) {
			t.Errorf("one too many: %v", err)
		}
		b.must(b.set(b.deadline("r7", 0, 1<<41), false))
		if err := b.close(); !errors.Is(err, ErrBusy) {
			t.Errorf("end of a guard with deadlines: %v", err)
		}
	})
}
