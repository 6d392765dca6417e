package payload_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sluice/proto/inference"
	"sluice/proto/inference/redact"
	"sluice/proto/inference/tensor"
	"sluice/telemetry/payload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret marks what must not reach the disk.
const secret = "S3CRET"

func texts(t testing.TB, name string, values ...string) []tensor.Tensor {
	t.Helper()
	c := new(inference.InferTensorContents)
	for _, v := range values {
		c.BytesContents = append(c.BytesContents, []byte(v))
	}
	all, err := tensor.Inputs(&inference.ModelInferRequest{
		ModelName: secret, Id: secret, Parameters: map[string]*inference.InferParameter{secret: nil},
		Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: name, Datatype: "BYTES", Shape: []int64{int64(len(values))}, Contents: c}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// start runs a sampler until the returned function is called.
func start(t *testing.T, c payload.Config) (*payload.Sampler, func()) {
	t.Helper()
	s, err := payload.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// written returns all lines of a directory, oldest first, and the bytes of its files.
func written(t *testing.T, dir string) (lines []map[string]any, bytes int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "payloads-*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s may be read by others: %v", name, info.Mode())
		}
		bytes += info.Size()
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		scanner := bufio.NewScanner(file)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			var line map[string]any
			if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
				t.Errorf("%s: %q: %v", name, scanner.Text(), err)
			}
			lines = append(lines, line)
		}
		file.Close()
	}
	return lines, bytes
}

func settings(hide ...string) payload.Settings {
	return payload.Settings{MaxBytes: 4096, Rules: redact.New(hide, nil, nil)}
}

func TestSamplesAreLinesWithoutSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "for", "it")
	s, stop := start(t, payload.Config{Dir: dir})
	s.Offer("fraud", "v7", settings("iban"), append(texts(t, "iban", secret), texts(t, "city", "Bonn")...), texts(t, "y", "no"))
	stop()
	lines, _ := written(t, dir)
	if len(lines) != 1 {
		t.Fatalf("%d lines, want 1", len(lines))
	}
	text, _ := json.Marshal(lines[0])
	for _, want := range []string{`"model":"fraud"`, `"version":"v7"`, `"data":["Bonn"]`, `"data":["no"]`, `"data":["[redacted]"]`, `"time":"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("line %s lacks %s", text, want)
		}
	}
	if strings.Contains(string(text), secret) {
		t.Errorf("a secret was written: %s", text)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory %v, %v, want it closed to others", info.Mode(), err)
	}
	if w, d := s.Counts(); w != 1 || d != 0 {
		t.Errorf("%d written and %d dropped, want 1 and 0", w, d)
	}
}

func TestFilesStayWithinTheirRoomAndTheNewestStay(t *testing.T) {
	dir := t.TempDir()
	stranger := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(stranger, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	const room = 64 << 10
	s, stop := start(t, payload.Config{Dir: dir, MaxBytes: room})
	const samples = 1500
	for i := range samples {
		s.Offer("m", fmt.Sprint(i), settings(), texts(t, "x", strings.Repeat("a", 300)), nil)
		for w, d := s.Counts(); w+d <= uint64(i); w, d = s.Counts() {
			time.Sleep(10 * time.Microsecond)
		}
	}
	stop()
	lines, bytes := written(t, dir)
	if bytes > room || bytes < room/2 {
		t.Errorf("%d bytes are kept, want nearly %d", bytes, room)
	}
	for i, l := range lines {
		if want := fmt.Sprint(samples - len(lines) + i); l["version"] != want {
			t.Fatalf("line %d is sample %v, want %s: the newest are kept", i, l["version"], want)
		}
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Errorf("a file that is not its own: %v", err)
	}
}

func TestNothingIsKeptForLongerThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, stop := start(t, payload.Config{Dir: dir, Keep: 10 * time.Hour})
		s.Offer("m", "early", settings(), texts(t, "x", "a"), nil)
		time.Sleep(5 * time.Hour)
		s.Offer("m", "late", settings(), texts(t, "x", "a"), nil)
		versions := func() string {
			synctest.Wait()
			lines, _ := written(t, dir)
			var all []string
			for _, l := range lines {
				all = append(all, l["version"].(string))
			}
			return strings.Join(all, " ")
		}
		if got := versions(); got != "early late" {
			t.Errorf("after 5 hours there are %q, want both", got)
		}
		time.Sleep(5*time.Hour + 2*time.Minute)
		if got := versions(); got != "late" {
			t.Errorf("after 10 hours there are %q, want the late one", got)
		}
		stop()
		// Nobody has written since: the next process deletes what is left.
		time.Sleep(5 * time.Hour)
		_, stop = start(t, payload.Config{Dir: dir, Keep: 10 * time.Hour})
		if got := versions(); got != "" {
			t.Errorf("after a restart there are %q, want none", got)
		}
		stop()
	})
}

func TestLinesThatWaitInVainAreDroppedAndCounted(t *testing.T) {
	s, err := payload.New(payload.Config{Dir: t.TempDir()}) // nobody runs it
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		s.Offer("m", "v", settings(), texts(t, "x", "a"), nil)
	}
	if w, d := s.Counts(); w != 0 || d != 300-256 {
		t.Errorf("%d written and %d dropped, want 0 and %d", w, d, 300-256)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if w, _ := s.Counts(); w != 256 {
		t.Errorf("%d written at the end, want the 256 that waited", w)
	}
}

func TestADirectoryThatCannotBeWrittenIsToldAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := payload.New(payload.Config{Dir: file}); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// A directory that goes away costs samples, and nothing else: when it is back, so are they.
func TestADirectoryThatGoesAwayCostsSamplesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "d")
		s, stop := start(t, payload.Config{Dir: dir})
		defer stop()
		offer := func() { s.Offer("m", "v", settings(), texts(t, "x", "a"), nil); synctest.Wait() }
		offer()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour) // another file is due
		offer()
		if w, d := s.Counts(); w != 1 || d != 1 {
			t.Errorf("%d written and %d dropped without a directory, want 1 and 1", w, d)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		offer()
		if w, d := s.Counts(); w != 2 || d != 1 {
			t.Errorf("%d written and %d dropped since it is back, want 2 and 1", w, d)
		}
	})
}
