package lease

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"berth/state"
	"berth/workspace"
)

// logged is an entry of the log that all servers have agreed on.
type logged struct {
	term  uint64
	entry []byte
}

// server is a voter with its own replica.
type server struct {
	w       *world
	name    string
	store   *state.Store
	applied int
	clock   clock
	wrong   time.Duration // its wall clock's error
	keeper  *Keeper
	alone   bool // cut off from the other servers
	cancel  context.CancelFunc
	ended   chan struct{} // its latest term's work
}

func (w *world) newServer(i int) *server {
	s := &server{w: w, name: fmt.Sprintf("s%d", i), store: state.New(), clock: w.newClock(), cancel: func() {}}
	s.keeper = NewKeeper(slog.New(slog.DiscardHandler), s.clock.now)
	return s
}

func (s *server) wall() time.Time { return time.Now().Add(s.wrong) }

func (s *server) leads() bool { return s.w.leader == s && !s.alone }

// catchUp applies the log to its end.
func (s *server) catchUp() (res state.Result) {
	for s.applied < len(s.w.log) {
		e := s.w.log[s.applied]
		s.applied++
		var err error
		if res, err = s.store.ApplyInTerm(uint64(s.applied), e.term, e.entry); err != nil {
			s.w.t.Fatalf("seed %d: %v", s.w.seed, err)
		}
	}
	return res
}

// commit appends a command of the leader's and applies it there; the others
// follow.
func (w *world) commit(by state.Caller, cmd state.Command) state.Result {
	s := w.leader
	entry, err := state.Encode(cmd, by, s.wall())
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	before := s.store.View()
	w.log = append(w.log, logged{w.term, entry})
	res := s.catchUp()
	w.found.entries++
	w.checkEntry(before, s.store.View(), cmd)
	for _, other := range w.servers {
		w.after(w.between(time.Millisecond, 300*time.Millisecond), func() {
			if other != s && !other.alone {
				other.catchUp()
			}
			w.tellNodes(other)
		})
	}
	return res
}

// termCluster is the cluster as a leader's work in one term has it.
type termCluster struct {
	*server
	number uint64
}

// View waits for the event that goes on: each world runs the same every time.
func (c termCluster) View() state.View {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.store.View()
}

// Now steps with the server's clock: the real one doesn't within a term.
func (c termCluster) Now() time.Time {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.wall()
}

// Propose appends after a moment. One that the leader didn't live to append may
// still be in the next term: what it was made of has changed since.
func (c termCluster) Propose(ctx context.Context, cmd state.Command) error {
	done := make(chan error, 1)
	c.w.mu.Lock()
	delay := c.w.between(100*time.Microsecond, 20*time.Millisecond)
	if c.w.chance(0.02) {
		delay = c.w.between(time.Second, 10*time.Second)
	}
	again := c.w.chance(0.5)
	c.w.after(delay, func() {
		w := c.w
		if w.leader != nil && !w.leader.alone && (c.leads() && w.term == c.number || again) {
			if res := w.commit(state.Caller{Role: workspace.RoleSystem}, cmd); res.Err != nil {
				done <- res.Err
				return
			}
			done <- nil
			return
		}
		done <- workspace.Errorf(workspace.CodeUnavailable, "leadership was lost")
	})
	c.w.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return workspace.Errorf(workspace.CodeUnavailable, "the outcome isn't known")
	}
}

// elect makes a leader of a server that has all that was committed.
func (w *world) elect() {
	var able []*server
	for _, s := range w.servers {
		if !s.alone {
			able = append(able, s)
		}
	}
	s := pick(w, able...)
	w.term++
	w.leader = s
	s.catchUp()
	s.lead(w.term)
}

// lead begins the work of a term once that of the one before has ended.
func (s *server) lead(number uint64) {
	s.cancel()
	ctx, cancel := context.WithCancel(context.Background())
	before, ended := s.ended, make(chan struct{})
	s.cancel, s.ended = cancel, ended
	go func() {
		defer close(ended)
		if before != nil {
			<-before
		}
		term := s.keeper.Term(termCluster{s, number}, number)
		if s.w.protocol == noMargin {
			term.patience = func(l *workspace.Lease) time.Duration { return time.Duration(l.GrantedMS) * time.Millisecond }
		}
		if err := term.Run(ctx); err != nil && ctx.Err() == nil {
			s.w.mu.Lock()
			defer s.w.mu.Unlock()
			if s.w.leader == s && s.w.term == number {
				s.w.depose(time.Second)
			}
		}
	}()
}

func (s *server) resign() { s.cancel() }

// depose takes leadership away; another is elected after a while. The server
// may not notice at once.
func (w *world) depose(pause time.Duration) {
	s := w.leader
	if s == nil {
		return
	}
	cancel := s.cancel
	w.leader = nil
	w.after(w.between(0, 5*time.Second), cancel)
	w.after(pause, func() {
		if w.leader == nil {
			w.elect()
		}
	})
}

// leaderBehind is the leader that a server reaches; nil: none.
func (w *world) leaderBehind(s *server) *server {
	if w.leader == nil || w.leader.alone || s.alone {
		return nil
	}
	return w.leader
}
