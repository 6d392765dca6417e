package tape

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sluice/shadow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// kept is a copy of a call with messages of a size.
func kept(id string, size int) *shadow.Copy {
	c := &Call{
		RequestID: id, Path: "/shop.Checkout/Price", Authority: "models", Version: "v7", Code: 5, LatencyMicros: 1200,
		Metadata: []string{"x-tenant", "a", "authorization", "secret", "cookie", "secret", "x-api-key", "secret"},
		Request:  bytes.Repeat([]byte{0xfe}, size), Answer: []byte("answer"), Encoding: "gzip", AnswerEncoding: "gzip",
	}
	return c.Copy()
}

// all reads everything that a folder has.
func all(t *testing.T, dir string) []*Call {
	t.Helper()
	files, err := Files(dir, "m", "")
	if err != nil {
		t.Fatal(err)
	}
	var calls []*Call
	if err := Read(files, func(c *Call) error { calls = append(calls, c); return nil }); err != nil {
		t.Fatal(err)
	}
	return calls
}

func TestWhatIsReadIsWhatWasWrittenWithoutCredentials(t *testing.T) {
	dir := t.TempDir()
	r := New(dir, "m", Settings{MaxBytes: 1 << 20, Retain: time.Hour}, quiet)
	r.Offer(kept("one", 100))
	r.Offer(kept("two", 200))
	r.Close()
	calls := all(t, dir)
	if len(calls) != 2 || calls[0].RequestID != "one" || calls[1].RequestID != "two" {
		t.Fatalf("calls %+v", calls)
	}
	got, want := calls[0].Copy(), kept("one", 100)
	if got.Path != want.Path || got.Authority != want.Authority || got.Encoding != want.Encoding || got.Version != want.Version ||
		got.Code != want.Code || got.Latency != want.Latency || !slices.Equal(got.Metadata, []string{"x-tenant", "a"}) ||
		!bytes.Equal(got.Payload.AppendRequest(nil), want.Payload.AppendRequest(nil)) || string(got.Payload.AppendAnswer(nil)) != "answer" ||
		got.Payload.AnswerEncoding() != "gzip" || calls[0].Time.IsZero() {
		t.Errorf("call %+v", calls[0])
	}
	files, _ := Files(dir, "m", "")
	text, err := os.ReadFile(files[0])
	if err != nil || strings.Contains(string(text), "secret") {
		t.Errorf("a credential was written: %v\n%s", err, text)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read %v: %v", info, err)
	}
	if written, dropped := r.Counts(); written != 2 || dropped != 0 {
		t.Errorf("%d written, %d dropped", written, dropped)
	}
	r.Offer(kept("late", 1))
	if _, dropped := r.Counts(); dropped != 1 {
		t.Errorf("an offer after the end: %d dropped", dropped)
	}
}

func TestFilesAreBoundedInSizeAndTheOldestGo(t *testing.T) {
	const most = 64 << 10
	dir := t.TempDir()
	r := New(dir, "m", Settings{MaxBytes: most, Retain: time.Hour}, quiet)
	for range 300 {
		for r.bytes.Load() > queuedBytes/2 || len(r.queue) > queued/2 {
			time.Sleep(time.Millisecond)
		}
		r.Offer(kept("first", 1000))
	}
	r.Offer(kept("large", 2*most))
	r.Offer(kept("last", 1000))
	r.Close()
	files, _ := Files(dir, "m", "")
	size := int64(0)
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	calls := all(t, dir)
	if size > most || size < most/2 || calls[len(calls)-1].RequestID != "last" {
		t.Errorf("%d bytes in %d files, want at most %d and hardly less; the last call is %s", size, len(files), most, calls[len(calls)-1].RequestID)
	}
	if written, dropped := r.Counts(); written != 301 || dropped != 1 {
		t.Errorf("%d written, %d dropped", written, dropped)
	}
}

// No call is kept longer than the route says, however few come, and hardly shorter; what
// others have put into the folder is left alone.
func TestNoCallIsKeptLongerThanItsTime(t *testing.T) {
	for _, retain := range []time.Duration{time.Minute, 24 * time.Hour} {
		t.Run(retain.String(), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				r := New(dir, "m", Settings{MaxBytes: 1 << 20, Retain: retain}, quiet)
				defer r.Close()
				begun := time.Now()
				const step = 32
				most := 0
				for i := range 3 * step {
					if i < step {
						r.Offer(kept("one", 10))
					}
					if i == 0 {
						synctest.Wait()
						if err := os.WriteFile(filepath.Join(Folder(dir, "m"), "notes.txt"), nil, 0o600); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(retain / step)
					synctest.Wait()
					calls := all(t, dir)
					most = max(most, len(calls))
					for _, c := range calls {
						if age := time.Since(c.Time); age > retain+lookEvery {
							t.Fatalf("after %v there is a call of %v ago", time.Since(begun), age)
						}
					}
				}
				if most < step*7/8 {
					t.Errorf("at most %d calls were there, want nearly %d", most, step)
				}
				if calls := all(t, dir); len(calls) != 0 {
					t.Errorf("%d calls are left", len(calls))
				}
				if _, err := os.Stat(filepath.Join(Folder(dir, "m"), "notes.txt")); err != nil {
					t.Errorf("somebody else's file: %v", err)
				}
			})
		})
	}
}

// A call that is too large for a file costs neither the file of the moment nor a line of the
// log each time.
func TestCallsThatAreTooLargeCostTheOthersNothing(t *testing.T) {
	const most = 64 << 10
	dir := t.TempDir()
	var said bytes.Buffer
	r := New(dir, "m", Settings{MaxBytes: most, Retain: time.Hour}, slog.New(slog.NewTextHandler(&said, nil)))
	for range 20 {
		r.Offer(kept("small", 10))
		r.Offer(kept("large", most))
	}
	r.Close()
	files, _ := Files(dir, "m", "")
	if calls := all(t, dir); len(calls) != 20 || len(files) != 1 {
		t.Errorf("%d calls in %d files, want 20 in one", len(calls), len(files))
	}
	if n := strings.Count(said.String(), "too large"); n != 1 {
		t.Errorf("said %d times: %s", n, &said)
	}
	if written, dropped := r.Counts(); written != 20 || dropped != 20 {
		t.Errorf("%d written, %d dropped", written, dropped)
	}
}

// Copies that wait to be written are bounded, and callers wait for none of them.
func TestCopiesThatWaitToBeWrittenAreBounded(t *testing.T) {
	for name, size := range map[string]int{"in number": 1, "in bytes": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := New(dir, "m", Settings{MaxBytes: 1 << 30, Retain: time.Hour}, quiet)
			blocked := kept("first", 1)
			stuck := &stuckPayload{Payload: blocked.Payload, release: make(chan struct{}), stuck: make(chan struct{})}
			blocked.Payload = stuck
			r.Offer(blocked)
			<-stuck.stuck // the recorder is in the middle of it
			const offered = 2 * queued
			for range offered {
				r.Offer(kept("next", size))
			}
			room := min(queued, queuedBytes/kept("next", size).Payload.Memory())
			if _, dropped := r.Counts(); dropped != uint64(offered-room) {
				t.Errorf("%d were dropped, want all but %d of %d", dropped, room, offered)
			}
			close(stuck.release)
			r.Close()
			if written, _ := r.Counts(); written != uint64(room+1) {
				t.Errorf("%d were written, want %d", written, room+1)
			}
		})
	}
}

// stuckPayload hangs while it is read.
type stuckPayload struct {
	shadow.Payload
	stuck, release chan struct{}
}

func (p *stuckPayload) AppendRequest(dst []byte) []byte {
	close(p.stuck)
	<-p.release
	return p.Payload.AppendRequest(dst)
}

func TestCutOffLinesAreLeftOutAndWrongOnesNamed(t *testing.T) {
	dir := t.TempDir()
	r := New(dir, "m", Settings{MaxBytes: 1 << 20, Retain: time.Hour}, quiet)
	r.Offer(kept("one", 10))
	r.Close()
	files, _ := Files(dir, "m", "")
	add := func(text string) {
		f, err := os.OpenFile(files[0], os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	add(`{"path":"/a`)
	if calls := all(t, dir); len(calls) != 1 {
		t.Errorf("%d calls", len(calls))
	}
	add("\n")
	err := Read(files, func(*Call) error { return nil })
	if err == nil || !strings.Contains(err.Error(), files[0]+":2: ") {
		t.Errorf("a wrong line: %v", err)
	}
	stop := errors.New("stop")
	if err := Read(files, func(*Call) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// A name leads nowhere but into the route's own folder.
func TestNamesStayInTheirFolder(t *testing.T) {
	for _, name := range []string{"../x.jsonl", "/etc/passwd", "a/b.jsonl", ".jsonl", "x.txt"} {
		if _, err := Files(t.TempDir(), "m", name); err == nil || !strings.Contains(err.Error(), "got") {
			t.Errorf("%q: %v", name, err)
		}
	}
	seen := make(map[string]string)
	for _, model := range []string{"..", ".", "a/b", "a%2Fb", "a", "A.b", "~"} {
		folder := Folder("/dir", model)
		if filepath.Dir(folder) != "/dir" || seen[folder] != "" {
			t.Errorf("%q is kept in %s, as is %q", model, folder, seen[folder])
		}
		seen[folder] = model
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"path":"/a/b","request":"AAAAAAA="}` + "\n{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		name := filepath.Join(t.TempDir(), "x.jsonl")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = Read([]string{name}, func(c *Call) error {
			c.Copy().Payload.AppendRequest(nil)
			return nil
		})
	})
}
