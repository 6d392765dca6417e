package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "sluice/proto/inference"
	"sluice/routing/storetest"
)

// tattler is a model server that repeats in its errors whatever it was sent.
type tattler struct {
	pb.UnimplementedGRPCInferenceServiceServer
}

func (tattler) ModelInfer(ctx context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return nil, status.Errorf(codes.Internal, "%v %v", r, md)
}

func startTattler(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterGRPCInferenceServiceServer(s, tattler{})
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(ln) })
	t.Cleanup(func() {
		s.Stop()
		serving.Wait()
	})
	return ln.Addr().String()
}

// TestPasswordOfAStoreThatIsAwayStaysSecret: what is told of its errors names the store, not the password in its address.
func TestPasswordOfAStoreThatIsAwayStaysSecret(t *testing.T) {
	const password = "hunter2redis"
	t.Chdir(t.TempDir())
	redis := storetest.StartRedis(t, "--user", "sluice", "on", ">"+password, "~*", "&*", "+@all")
	write(t, "routes.yaml", fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%[1]q]}]
    weights: {v7: 1}
`, startTattler(t)))
	gw := startServe(t, "--routes", "routes.yaml", "--log-level", "debug", "--log-format", "text",
		"--store", "redis://sluice:"+password+"@"+redis.Addr)
	redis.Kill()
	storetest.Eventually(t, "the log tells of the store's errors", func() bool {
		return strings.Contains(gw.log.String(), redis.Addr) && strings.Contains(readPage(t, "http://"+gw.admin+"/metrics"), "sluice_store_up 0")
	})
	told := gw.log.String()
	for _, path := range []string{"/metrics", "/debug/", "/readyz"} {
		told += readPage(t, "http://"+gw.admin+path)
	}
	for _, command := range [][]string{{"status"}, {"weights", "fraud", "v7=1", "--yes"}, {"history"}, {"incidents"}} {
		out, _ := gw.sluice(command...)
		told += out
	}
	if i := strings.Index(told, password); i >= 0 {
		t.Errorf("the password is told: %q", told[max(0, i-200):min(len(told), i+40)])
	}
	if !strings.Contains(told, redis.Addr) || !strings.Contains(told, "sluice_store_up 0") {
		t.Errorf("nothing is told of a store that is away:\n%s", told)
	}
}

// A thousand secrets in payloads, in metadata and in the address of the store come to light nowhere: not in the log
// at its most talkative, nor in spans, metrics or the page for people.
func TestSecretsStaySecret(t *testing.T) {
	const mark = "hunter2"
	t.Chdir(t.TempDir())
	redis := storetest.StartRedis(t, "--user", "sluice", "on", ">"+mark+"redis", "~*", "&*", "+@all")
	write(t, "routes.yaml", fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%[1]q]}, {name: v8, endpoints: [%[1]q]}, {name: v9, endpoints: [%[1]q]}]
    weights: {v7: 1}
    shadow: [{version: v9, percent: 100}]
    sticky: {metadata: x-user}
    fallback: {to: [v8], on: [INTERNAL]}
    breaker: {dry_run: true}
`, startTattler(t)))

	var mu sync.Mutex
	var exported bytes.Buffer
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.WriteString(&exported, r.URL.Path+"\n")
		_, _ = io.Copy(&exported, r.Body)
	}))
	t.Cleanup(sink.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.URL)
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	gw := startServe(t, "--routes", "routes.yaml", "--log-level", "debug", "--log-format", "text",
		"--store", "redis://sluice:"+mark+"redis@"+redis.Addr)

	conn, err := grpc.NewClient(gw.data, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewGRPCInferenceServiceClient(conn)
	n := 0
	secret := func() string {
		n++
		return fmt.Sprintf("%s-%d", mark, n)
	}
	answered := 0
	for i := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secret(), "x-user", secret(),
			"cookie", secret(), "x-token-bin", secret(), "baggage", "k="+secret(), "tracestate", "k="+secret())
		r := &pb.ModelInferRequest{ModelName: "fraud", Id: secret(), RawInputContents: [][]byte{[]byte(secret())},
			Parameters: map[string]*pb.InferParameter{secret(): {}},
			Inputs:     []*pb.ModelInferRequest_InferInputTensor{{Name: secret()}}}
		switch i % 5 {
		case 1:
			r.ModelName = secret()
		case 2:
			r.ModelVersion = secret()
		case 3:
			ctx = metadata.AppendToOutgoingContext(ctx, "sluice-version", secret())
		case 4:
			ctx = metadata.AppendToOutgoingContext(ctx, "sluice-model", secret())
		}
		_, err := client.ModelInfer(ctx, r)
		cancel()
		if strings.Contains(err.Error(), mark) {
			answered++ // the caller gets its own words back
		}
	}
	if n < 1000 || answered != 100 {
		t.Fatalf("%d secrets were sent, %d of 100 errors repeat them: too few to mean anything", n, answered)
	}

	pages := map[string]string{}
	for _, path := range []string{"/metrics", "/debug/", "/debug/pprof/", "/debug/pprof/goroutine?debug=1"} {
		pages[path] = readPage(t, "http://"+gw.admin+path)
	}
	if !strings.Contains(pages["/debug/"], "MODEL_NOT_FOUND") || !strings.Contains(pages["/metrics"], `reason="MODEL_NOT_FOUND"`) {
		t.Errorf("the failures do not show on the page or in the metrics:\n%s", pages["/debug/"])
	}
	storetest.Eventually(t, "spans and metrics are exported", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return bytes.Contains(exported.Bytes(), []byte("feature_flag.key")) && bytes.Contains(exported.Bytes(), []byte("sluice.shadow.answered_by")) && bytes.Contains(exported.Bytes(), []byte("sluice_call_duration_seconds"))
	})
	if err := gw.stop(); err != nil {
		t.Error(err)
	}
	pages["log"], pages["exported"] = gw.log.String(), exported.String()
	if !strings.Contains(pages["log"], "call failed") {
		t.Error("no failed call is in the log")
	}
	for name, text := range pages {
		if i := strings.Index(text, mark); i >= 0 {
			t.Errorf("%s tells a secret: %q", name, text[max(0, i-100):min(len(text), i+40)])
		}
	}
}

func readPage(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s\n%s", url, resp.Status, b)
	}
	return string(b)
}
