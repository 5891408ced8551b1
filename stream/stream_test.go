package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// sockets gives both ends of a websocket.
func sockets(t *testing.T) (client, server *websocket.Conn) {
	t.Helper()
	return socketsThat(t, &websocket.DialOptions{})
}

func socketsThat(t *testing.T, options *websocket.DialOptions) (client, server *websocket.Conn) {
	t.Helper()
	accepted, over := make(chan *websocket.Conn), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- ws
		<-over
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(over) })
	options.HTTPClient = s.Client()
	client, res, err := websocket.Dial(t.Context(), s.URL, options)
	if err != nil {
		t.Fatal(err)
	}
	if res.Body != nil {
		res.Body.Close()
	}
	server = <-accepted
	t.Cleanup(func() { _, _ = client.CloseNow(), server.CloseNow() })
	return client, server
}

// pair is a client and a server that have Data both ways, and Stdout from the
// server to the client.
func pair(t *testing.T, clientNote, serverNote func(Channel, []byte)) (client, server *Session) {
	t.Helper()
	c, s := sockets(t)
	client = New(c, Config{Receive: []Channel{Data, Stdout}, Send: []Channel{Data}, Note: clientNote})
	server = New(s, Config{Receive: []Channel{Data}, Send: []Channel{Data, Stdout}, Note: serverNote})
	t.Cleanup(func() { client.Abort(); server.Close(); client.Close() })
	return client, server
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
	}
}

// start runs f and gives a channel that is closed after it.
func start(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	return done
}

func TestBothWays(t *testing.T) {
	client, server := pair(t, nil, nil)
	const size = 100 << 20
	copyOut := func(to *Session, seed uint64, sum *[32]byte) func() {
		return func() {
			h := sha256.New()
			if _, err := io.Copy(to.Writer(Data), io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), size), h)); err != nil {
				t.Error(err)
			}
			if err := to.CloseWrite(); err != nil {
				t.Error(err)
			}
			copy(sum[:], h.Sum(nil))
		}
	}
	copyIn := func(from *Session, sum *[32]byte) func() {
		return func() {
			h := sha256.New()
			if n, err := io.Copy(h, from.Reader(Data)); err != nil || n != size {
				t.Errorf("%d bytes came, %v", n, err)
			}
			copy(sum[:], h.Sum(nil))
		}
	}
	var out, back, outRead, backRead [32]byte
	for _, done := range []<-chan struct{}{
		start(copyOut(client, 1, &out)), start(copyOut(server, 2, &back)), start(copyIn(server, &outRead)), start(copyIn(client, &backRead)),
	} {
		within(t, "100 MiB both ways", done)
	}
	if out != outRead || back != backRead || out == back {
		t.Error("other bytes came than were sent")
	}
}

// A reader that takes nothing stops its sender after a window, and nothing else.
func TestSlowReader(t *testing.T) {
	noted := make(chan string, 1)
	client, server := pair(t, nil, func(c Channel, content []byte) { noted <- string(content) })
	sent := make(chan int, 1)
	full := start(func() {
		n, err := server.Writer(Stdout).Write(make([]byte, Window+1))
		if err != nil {
			t.Error(err)
		}
		sent <- n
	})
	// The other channel works all the while.
	if _, err := server.Writer(Data).Write([]byte("quick")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(client.Reader(Data), got); err != nil || string(got) != "quick" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := client.Send(Resize, []byte("size")); err != nil {
		t.Fatal(err)
	}
	if text := <-noted; text != "size" {
		t.Errorf("noted %q", text)
	}
	client.in[Stdout].mu.Lock()
	held := len(client.in[Stdout].bytes)
	client.in[Stdout].mu.Unlock()
	select {
	case <-full:
		t.Fatal("more than a window was sent to one that reads nothing")
	default:
	}
	if held > Window {
		t.Errorf("%d bytes are held, the window is %d", held, Window)
	}
	if _, err := io.CopyN(io.Discard, client.Reader(Stdout), Window/4+1); err != nil {
		t.Fatal(err)
	}
	within(t, "the rest, once some was read", full)
	if n := <-sent; n != Window+1 {
		t.Errorf("%d bytes were sent", n)
	}
}

func TestHalfClose(t *testing.T) {
	client, server := pair(t, nil, nil)
	_, _ = client.Writer(Data).Write([]byte("question"))
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(server.Reader(Data)); err != nil || string(text) != "question" {
		t.Fatalf("%q, %v", text, err)
	}
	_, _ = server.Writer(Data).Write([]byte("answer"))
	_, _ = server.Writer(Stdout).Write([]byte("output"))
	if err := server.SendJSON(Ended, End{}); err != nil {
		t.Fatal(err)
	}
	server.Close()
	for channel, want := range map[Channel]string{Data: "answer", Stdout: "output"} {
		if text, err := io.ReadAll(client.Reader(channel)); err != nil || string(text) != want {
			t.Errorf("%q, %v, want %q", text, err, want)
		}
	}
	if err := client.Err(); err != nil {
		t.Errorf("an end that was said is no error, got %v", err)
	}
}

// Who reads to the end knows how it came.
func TestNoteComesBeforeTheEnd(t *testing.T) {
	var end string
	client, server := pair(t, func(c Channel, content []byte) {
		if c == Ended {
			end = string(content)
		}
	}, nil)
	if err := server.SendJSON(Ended, End{Code: 7}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(client.Reader(Stdout)); err != nil || end != `{"code":7}` {
		t.Errorf("end %q, %v", end, err)
	}
}

func TestPeerGone(t *testing.T) {
	client, server := pair(t, nil, nil)
	reading := start(func() {
		if _, err := io.ReadAll(server.Reader(Data)); err == nil {
			t.Error("a connection that broke is read as its end")
		}
	})
	writing := start(func() {
		if _, err := server.Writer(Stdout).Write(make([]byte, 2*Window)); err == nil {
			t.Error("what was written to nobody was written")
		}
	})
	client.Abort()
	within(t, "the reader", reading)
	within(t, "the writer", writing)
	within(t, "the end", server.Done())
	if server.Err() == nil {
		t.Error("a client that is gone leaves no error")
	}
	if _, err := client.Reader(Data).Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read after Abort: %v", err)
	}
}

func TestInterrupt(t *testing.T) {
	told := make(chan string, 1)
	client, server := pair(t, func(_ Channel, content []byte) { told <- string(content) }, nil)
	cause := errors.New("the server goes")
	reading := start(func() {
		if _, err := server.Reader(Data).Read(make([]byte, 1)); !errors.Is(err, cause) {
			t.Errorf("read: %v", err)
		}
	})
	writing := start(func() {
		if _, err := server.Writer(Stdout).Write(make([]byte, 2*Window)); !errors.Is(err, cause) {
			t.Errorf("write: %v", err)
		}
	})
	server.Interrupt(cause)
	within(t, "the reader", reading)
	within(t, "the writer", writing)
	if err := server.Send(Ended, []byte("bye")); err != nil {
		t.Fatal(err)
	}
	if text := <-told; text != "bye" {
		t.Errorf("told %q", text)
	}
	select {
	case <-client.Done():
		t.Error("an interrupt ends the connection")
	default:
	}
}

// One that doesn't keep to the rules is cut off before it costs memory.
func TestRuleBreakers(t *testing.T) {
	frame := func(c Channel, content string) []byte { return append([]byte{byte(c)}, content...) }
	half := strings.Repeat("x", Window/2+1)
	for name, send := range map[string][][]byte{
		"more than the window":    {frame(Data, half), frame(Data, half)},
		"an empty message":        {{}},
		"taken, but never sent":   {frame(Taken, "\x07\x00\x00\x00\x01")},
		"taken, without a number": {frame(Taken, "\x01")},
		"a huge message":          {frame(Data, strings.Repeat("x", maxMessage+1))},
	} {
		t.Run(name, func(t *testing.T) {
			client, ws := sockets(t)
			server := New(ws, Config{Receive: []Channel{Data}, Send: []Channel{Stdout}})
			gone := start(func() { // a client that reads, so that the close is answered
				for {
					if _, _, err := client.Read(context.Background()); err != nil {
						return
					}
				}
			})
			for _, message := range send {
				_ = client.Write(t.Context(), websocket.MessageBinary, message) // it may be cut off by now
			}
			within(t, "the end", server.Done())
			if server.Err() == nil {
				t.Error("it ended well")
			}
			server.Close()
			within(t, "the client", gone)
		})
	}
}

func TestTextIsNoFrame(t *testing.T) {
	client, ws := sockets(t)
	server := New(ws, Config{Receive: []Channel{Data}})
	if err := client.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	_, _, _ = client.Read(t.Context())
	within(t, "the end", server.Done())
	if err := server.Err(); err == nil || !strings.Contains(err.Error(), "no frame") {
		t.Errorf("ended with %v", err)
	}
	server.Close()
}

// One that answers no ping is dead, also while it is being written to.
func TestPing(t *testing.T) {
	for _, writing := range []bool{false, true} {
		client, ws := sockets(t) // nobody reads from client, so it answers nothing
		server := New(ws, Config{Send: []Channel{Stdout}, Ping: 50 * time.Millisecond})
		done := start(func() {
			if writing {
				server.out[Stdout].add(1 << 30)
				_, _ = io.Copy(server.Writer(Stdout), endless{})
			}
		})
		within(t, "the end", server.Done())
		within(t, "the writer", done)
		if err := server.Err(); err == nil {
			t.Error("one that is dead ended well")
		}
		server.Close()
		_ = client.CloseNow()
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestPingKeepsAlive(t *testing.T) {
	pings := make(chan struct{}, 1)
	c, s := socketsThat(t, &websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
		select {
		case pings <- struct{}{}:
		default:
		}
		return true
	}})
	client := New(c, Config{Receive: []Channel{Data}})
	server := New(s, Config{Send: []Channel{Data}, Ping: time.Millisecond, Patience: patience})
	for range 5 {
		select {
		case <-pings:
		case <-server.Done():
			t.Fatalf("pings that were answered ended it: %v", server.Err())
		}
	}
	if _, err := server.Writer(Data).Write([]byte("x")); err != nil {
		t.Error(err)
	}
	got := make([]byte, 1)
	if _, err := io.ReadFull(client.Reader(Data), got); err != nil || !bytes.Equal(got, []byte("x")) {
		t.Errorf("%q, %v", got, err)
	}
	client.Abort()
	server.Close()
	client.Close()
}
