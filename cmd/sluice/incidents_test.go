package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/loopback"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing/storetest"
	"sluice/telemetry/incident"
)

// TestIncidentIsShownAndTold: a version that cannot be reached fails until its breaker opens, another one answers, and
// somebody rolls back.
func TestIncidentIsShownAndTold(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--routes", write(t, "routes.yaml", fmt.Sprintf(`routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%q]}, {name: v8, endpoints: [%q]}]
    weights: {v7: 1}
    fallback: {to: [v7], on: [UNAVAILABLE]}
    breaker: {consecutive: 5, open_for: 1h, max_open_for: 1h}
    health: {off: true}
`, startModelServer(t), deadAddress(t))))
	if out := gateway.must(t, "incidents"); out != "no incidents\n" {
		t.Errorf("at first:\n%s", out)
	}
	gateway.must(t, "weights", "fraud", "v8=100", "--reason", "the May model", "--force")
	conn, err := grpc.NewClient(gateway.data, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "sluice-model", "fraud")
	var row []string
	shown := regexp.MustCompile(`(?m)^(\d{8}-\d{6}-[0-9a-f]{6}) +fraud +\d.* \+\S+ +\+\S+ +open, \S+ +breaker +\d+ +0 +0 +\d+$`)
	for end := time.Now().Add(20 * time.Second); row == nil; row = shown.FindStringSubmatch(gateway.must(t, "incidents", "fraud", "--open")) {
		if time.Now().After(end) {
			t.Fatalf("no incident that is mitigated in:\n%s", gateway.must(t, "incidents"))
		}
		callOnce(ctx, conn)
	}
	if out := gateway.must(t, "incidents", "fraud"); !regexp.MustCompile(`(?m)^fraud +1 +1 +0 +\d+\.\d{3} % +\S+ +\S+ +\S+ +\S+ +- +- +- +-$`).MatchString(out) {
		t.Errorf("no line with the times of fraud, of which none is to recovery yet, in:\n%s", out)
	}
	gateway.must(t, "rollback", "fraud", "--reason", "v8 is dead")
	id := row[1][:8]
	gateway.must(t, "postmortem", id, "--action", "probe new versions", "--actor", "anna")
	story := gateway.must(t, "postmortem", id, "--done", "1", "--actor", "ben")
	for _, part := range []string{
		"# Incident " + row[1] + ": fraud", "by a breaker that opened", "the breaker cut v8 off, v7 answers", "| not yet; open for ",
		"revision 2: ", "the May model", "breaker of v8 open: consecutive failures", "revision 3: ", "v8 is dead",
		"after v8: ", "- [x] 1. probe new versions (anna)",
	} {
		if !strings.Contains(story, part) {
			t.Errorf("no %q in the postmortem:\n%s", part, story)
		}
	}
	if out, code := gateway.sluice("postmortem", "2027"); code != 1 || !strings.Contains(out, "no such incident") {
		t.Errorf("an incident that is not there: exit code %d\n%s", code, out)
	}
}

// TestRollbackHelpsTheCallersOfAllGateways, whichever was asked for it, and whatever it undoes: no version loses its weight here.
func TestRollbackHelpsTheCallersOfAllGateways(t *testing.T) {
	t.Chdir(t.TempDir())
	redis := storetest.StartRedis(t)
	routes := func(server string) string {
		return write(t, "routes.yaml", fmt.Sprintf(`routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%q]}]
    weights: {v7: 1}
    breaker: {dry_run: true}
    health: {off: true}
    slo: {availability: 99.9}
`, server))
	}
	good := routes(startModelServer(t))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "sluice-model", "fraud")
	var gateways []*served
	var conns []*grpc.ClientConn
	for range 2 {
		listen, err := loopback.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		g := startServe(t, "--listen", listen, "--routes", good, "--store", redis.URL()) // its port is part of its name
		conn, err := grpc.NewClient(g.data, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		gateways, conns = append(gateways, g), append(conns, conn)
	}
	gateways[0].must(t, "apply", "-f", routes(deadAddress(t)), "--force", "--yes")
	story := func() string {
		id := regexp.MustCompile(`(?m)^\d{8}-\d{6}-[0-9a-f]{6}`).FindString(gateways[0].must(t, "incidents"))
		if id == "" {
			return ""
		}
		return gateways[0].must(t, "postmortem", id)
	}
	until := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not so within a minute:\n%s", what, story())
			}
		}
	}
	until("both gateways are in trouble", func() bool {
		for _, conn := range conns {
			callOnce(ctx, conn)
		}
		return strings.Count(story(), "the error budget for availability burns") == 2
	})
	gateways[0].must(t, "rollback", "fraud", "--reason", "the new server is dead")
	until("both gateways know that it is mitigated", func() bool {
		return regexp.MustCompile(`(?m)^\| mitigated \| .*: rolled back: the new server is dead \|$`).MatchString(story())
	})
}

// TestTimesAreInUTC, and say so, wherever the operator is: logs, ids and postmortems of incidents are.
func TestTimesAreInUTC(t *testing.T) {
	here := time.Local
	t.Cleanup(func() { time.Local = here })
	time.Local = time.FixedZone("elsewhere", 2*60*60)
	at := timestamppb.New(time.Date(2026, 5, 4, 12, 0, 4, 0, time.UTC))
	var out strings.Builder
	showIncidents(&out, &adminv1.ListIncidentsResponse{Incidents: []*adminv1.Incident{
		{Id: "20260504-120004-c0ffee", Model: "fraud", Onset: at, Detected: at},
	}}, at.AsTime())
	if got := out.String(); !strings.Contains(got, "  2026-05-04 12:00:04 UTC  ") {
		t.Errorf("incidents are shown as\n%s", got)
	}
	if got, want := eventLine(&adminv1.BreakerEvent{To: "open", OpenUntil: at}), ", probe from 12:00:04 UTC"; !strings.HasSuffix(got, want) {
		t.Errorf("a breaker's event is %q, want %q at its end", got, want)
	}
}

// TestPostmortemDoesNotControlTerminals, whatever a model server or a person has written.
func TestPostmortemDoesNotControlTerminals(t *testing.T) {
	const told = "is \x1b]0;all is well\x07 unhealthy\r\u009b2J"
	story := postmortem(&adminv1.GetIncidentResponse{Incident: &adminv1.Incident{
		Id: "20260504-120004-c0ffee", Model: "fraud", Mitigation: told, Mitigated: timestamppb.Now(),
		Events:  []*adminv1.IncidentEvent{{Text: told, Actor: told, RequestId: told}},
		Samples: []*adminv1.SampleCall{{RequestId: told, TraceId: told, Version: told, Code: told}},
		Actions: []*adminv1.ActionItem{{Text: told, Actor: told}},
	}}, time.Now())
	if at := strings.IndexAny(story, "\x1b\x07\r\u009b"); at >= 0 {
		t.Errorf("the story has %q", story[at:min(at+40, len(story))])
	}
	if !strings.Contains(story, "all is well") || !strings.Contains(story, "\n## Timeline\n") {
		t.Errorf("the story has lost its words or lines:\n%s", story)
	}
}

// TestHorizonThatIsCutIsSaid: where incidents are no longer kept, uptime is not that of 30 days.
func TestHorizonThatIsCutIsSaid(t *testing.T) {
	now := time.Date(2026, 5, 31, 12, 0, 0, 0, time.UTC)
	var out strings.Builder
	showIncidents(&out, &adminv1.ListIncidentsResponse{Reliability: []*adminv1.Reliability{
		{Model: "quiet", Incidents: 1, Uptime: 1, Since: timestamppb.New(now.Add(-incident.Horizon))},
		{Model: "noisy", Incidents: 9, Uptime: 1, Since: timestamppb.New(now.Add(-24 * time.Hour))},
	}}, now)
	if got := out.String(); strings.Contains(got, "quiet: since") || !strings.HasSuffix(got, "\nnoisy: since 2026-05-30 12:00:00 UTC, incidents of before are no longer kept\n") {
		t.Errorf("shown is\n%s", got)
	}
}

// callOnce makes a call; that the server does not know the method is an answer, too.
func callOnce(ctx context.Context, conn *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = conn.Invoke(ctx, "/some.Service/Method", new(healthpb.HealthCheckRequest), new(healthpb.HealthCheckResponse))
}
