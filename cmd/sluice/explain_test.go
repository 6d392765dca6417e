package main

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// TestExplainTellsTheTruth compares what it says with what becomes of real calls,
// for keys, versions asked for, and refusals.
func TestExplainTellsTheTruth(t *testing.T) {
	t.Chdir(t.TempDir())
	alive := startModelServer(t)
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", alive, alive))
	gateway.must(t, "weights", "fraud", "v7=60", "v8=40")
	conn, err := grpc.NewClient(gateway.data, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call := func(pairs ...string) (version string, err error) {
		var header, trailer metadata.MD
		ctx := metadata.AppendToOutgoingContext(context.Background(), pairs...)
		// Any method that the gateway does not answer itself will do.
		err = conn.Invoke(ctx, "/some.Service/Method", new(healthpb.HealthCheckRequest), new(healthpb.HealthCheckResponse), grpc.Header(&header), grpc.Trailer(&trailer))
		if v := metadata.Join(header, trailer).Get("sluice-version"); len(v) > 0 {
			return v[0], nil
		}
		return "", err
	}
	seen := map[string]int{}
	for i := range 60 {
		metadata := []string{"x-user-id", fmt.Sprint("user-", i)}
		switch i % 6 {
		case 3:
			metadata = append(metadata, "sluice-key", fmt.Sprint("key-", i))
		case 4:
			metadata = append(metadata, "sluice-version", "v9")
		case 5:
			metadata = append(metadata, "sluice-version", "v1")
		}
		args := []string{"explain", "-o", "json", "--metadata", "sluice-model=fraud"}
		for j := 0; j < len(metadata); j += 2 {
			args = append(args, "--metadata", metadata[j]+"="+metadata[j+1])
		}
		var said struct{ Version, Reason, Refusal string }
		if err := json.Unmarshal([]byte(gateway.must(t, args...)), &said); err != nil {
			t.Fatal(err)
		}
		got, err := call(append(metadata, "sluice-model", "fraud")...)
		if got != said.Version || (got == "") != (said.Reason == "refused") {
			t.Errorf("%v: %q served it (%v), explain says %+v", metadata, got, err, said)
		}
		seen[said.Reason+" "+said.Version]++
	}
	for _, want := range []string{"sticky v7", "sticky v8", "forced v9", "refused "} {
		if seen[want] == 0 {
			t.Errorf("no call was %q: %v", want, seen)
		}
	}
}
