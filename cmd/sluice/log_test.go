package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "sluice/proto/inference"
	"sluice/routing/storetest"
)

// TestLogInJSON: one object a line, of a change with who made it and why, of a call that failed with what leads to it.
func TestLogInJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "routes.yaml", fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%[1]q]}, {name: v8, endpoints: [%[1]q]}]
    weights: {v7: 1}
`, startTattler(t)))
	gw := startServe(t, "--routes", "routes.yaml", "--log-format", "json")
	gw.must(t, "weights", "fraud", "v8=100", "--actor", "anna", "--reason", "the May model")
	conn, err := grpc.NewClient(gw.data, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "id-77")
	if _, err := pb.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, &pb.ModelInferRequest{ModelName: "fraud"}); err == nil {
		t.Fatal("the call has not failed")
	}
	lines := func() map[string]map[string]any { // the latest with each message
		all := make(map[string]map[string]any)
		for line := range strings.Lines(gw.log.String()) {
			fields := make(map[string]any)
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			all[fmt.Sprint(fields["msg"])] = fields
		}
		return all
	}
	storetest.Eventually(t, "the call has a line", func() bool { return lines()["call failed"] != nil })
	for msg, want := range map[string]map[string]any{
		"routes changed": {"level": "INFO", "revision": 2., "actor": "anna", "reason": "the May model", "models": "fraud"},
		"call failed":    {"level": "WARN", "request_id": "id-77", "model": "fraud", "version": "v8", "code": "INTERNAL", "revision": 2., "attempts": 1.},
	} {
		for key, value := range want {
			if got := lines()[msg][key]; got != value {
				t.Errorf("%s: %s is %v, want %v", msg, key, got, value)
			}
		}
	}
	if took, err := time.ParseDuration(fmt.Sprint(lines()["call failed"]["duration"])); err != nil || took <= 0 {
		t.Errorf("the call's duration is %v, want one with its unit", lines()["call failed"]["duration"])
	}
}

// TestLogLevel leaves out what is below it, and nothing else.
func TestLogLevel(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := newLogger(&out, format, "warn")
		if err != nil {
			t.Fatal(err)
		}
		log.Log(context.Background(), slog.LevelInfo, "quiet")
		log.Log(context.Background(), slog.LevelWarn, "loud", "after", 1500*time.Millisecond)
		if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "loud") || !strings.Contains(got, "1.5s") {
			t.Errorf("%s: %s", format, got)
		}
	}
}
