package admin_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
)

const (
	viewToken    = "view-token-0123456789"
	operateToken = "operate-token-0123456789"
	tokenLines   = "# who may do what\nview " + viewToken + "\n\n operate\t" + operateToken + "  # on call\n"
)

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func openTokens(t *testing.T, text string) *admin.TokenFile {
	t.Helper()
	tokens, err := admin.OpenTokens(writeFile(t, filepath.Join(t.TempDir(), "tokens"), text), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// TestWhoMayDoWhat asks for every method with every kind of token.
func TestWhoMayDoWhat(t *testing.T) {
	r := newRig(t, func(c *admin.Config) { c.Tokens = openTokens(t, tokenLines) })
	const none = connect.Code(0)
	var views, operates []string
	add := func(to *[]string, service string, methods ...string) {
		for _, m := range methods {
			*to = append(*to, "/"+service+"/"+m)
		}
	}
	add(&views, adminv1connect.AdminServiceName, "Get", "History", "Explain", "Status", "Watch")
	add(&operates, adminv1connect.AdminServiceName, "Apply", "SetWeights", "Promote", "Rollback")
	add(&views, adminv1connect.BreakerServiceName, "ListBreakers", "WatchBreakers")
	add(&views, adminv1connect.ShadowServiceName, "ListShadows")
	add(&operates, adminv1connect.BreakerServiceName, "OpenBreaker", "ResetBreaker")
	add(&views, adminv1connect.FaultServiceName, "ListFaults")
	add(&operates, adminv1connect.FaultServiceName, "InjectFault", "ClearFaults")
	add(&views, adminv1connect.IncidentServiceName, "ListIncidents", "GetIncident")
	add(&operates, adminv1connect.IncidentServiceName, "AnnotateIncident")
	add(&views, adminv1connect.DriftServiceName, "GetDrift")
	add(&operates, adminv1connect.DriftServiceName, "SetReference")
	add(&views, adminv1connect.LabelServiceName, "GetLabels")
	add(&operates, adminv1connect.ShadowServiceName, "Replay")
	streams := streamsOf(t, slices.Concat(views, operates))
	for _, test := range []struct {
		name   string
		header string
		view   connect.Code
		change connect.Code
	}{
		{"no token", "", connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		{"unknown token", "Bearer nobody-0123456789", connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		{"empty token", "Bearer ", connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		{"part of a token", "Bearer " + operateToken[:16], connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		{"another scheme", "Basic " + operateToken, connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		{"view", "Bearer " + viewToken, none, connect.CodePermissionDenied},
		{"operate", "bearer " + operateToken, none, none},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, method := range slices.Concat(views, operates) {
				want := test.view
				if !slices.Contains(views, method) {
					want = test.change
				}
				got := r.callWith(method, test.header, streams[method])
				if got != want && (want != none || got == connect.CodeUnauthenticated || got == connect.CodePermissionDenied) {
					t.Errorf("%s: %v, want %v", method, got, want)
				}
			}
		})
	}
	resp, err := r.http.Get(r.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/readyz without a token: status %d", resp.StatusCode)
	}
}

// streamsOf returns which methods answer with streams, after a look at whether all methods that operators have are among those.
func streamsOf(t *testing.T, methods []string) map[string]bool {
	t.Helper()
	streams := make(map[string]bool)
	protoregistry.GlobalFiles.RangeFilesByPackage("sluice.admin.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				name := fmt.Sprintf("/%s/%s", service.FullName(), m.Name())
				if streams[name] = m.IsStreamingServer(); !slices.Contains(methods, name) {
					t.Errorf("nobody asks for %s", name)
				}
			}
		}
		return true
	})
	return streams
}

// callWith calls a method with an empty request and an Authorization header.
func (r *rig) callWith(procedure, authorization string, stream bool) connect.Code {
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	if stream {
		c := connect.NewClient[adminv1.WatchRequest, adminv1.WatchResponse](r.http, r.url+procedure)
		req := connect.NewRequest(&adminv1.WatchRequest{})
		req.Header().Set("Authorization", authorization)
		stream, err := c.CallServerStream(ctx, req)
		if err != nil {
			return connect.CodeOf(err)
		}
		defer stream.Close()
		if stream.Receive() {
			return 0
		}
		return connect.CodeOf(stream.Err())
	}
	c := connect.NewClient[adminv1.GetRequest, adminv1.GetResponse](r.http, r.url+procedure)
	req := connect.NewRequest(&adminv1.GetRequest{})
	req.Header().Set("Authorization", authorization)
	if _, err := c.CallUnary(ctx, req); err != nil {
		return connect.CodeOf(err)
	}
	return 0
}

// TestWatchEndsWithItsToken, though it was allowed to begin.
func TestWatchEndsWithItsToken(t *testing.T) {
	name := writeFile(t, filepath.Join(t.TempDir(), "tokens"), tokenLines)
	tokens, err := admin.OpenTokens(name, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *admin.Config) { c.Tokens = tokens })
	req := connect.NewRequest(&adminv1.WatchRequest{})
	req.Header().Set("Authorization", "Bearer "+viewToken)
	client := connect.NewClient[adminv1.WatchRequest, adminv1.WatchResponse](r.http, r.url+adminv1connect.AdminServiceWatchProcedure)
	stream, err := client.CallServerStream(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	writeFile(t, name, "operate "+operateToken+"\n")
	for stream.Receive() { // what was under way
	}
	if err := stream.Err(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("the watch has ended with %v, want UNAUTHENTICATED", err)
	}
}

func TestTokensAreReadAgain(t *testing.T) {
	var log bytes.Buffer
	name := writeFile(t, filepath.Join(t.TempDir(), "tokens"), tokenLines)
	tokens, err := admin.OpenTokens(name, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, view, operate admin.Role) {
		t.Helper()
		if v, o := tokens.Role(viewToken), tokens.Role(operateToken); v != view || o != operate {
			t.Errorf("%s: roles %v and %v, want %v and %v", when, v, o, view, operate)
		}
	}
	expect("at first", admin.View, admin.Operate)
	writeFile(t, name, "operate "+operateToken+"\n")
	expect("one taken away", admin.NoRole, admin.Operate)
	writeFile(t, name, "operate short\n")
	expect("a bad file", admin.NoRole, admin.Operate)
	if strings.Contains(log.String(), operateToken) || !strings.Contains(log.String(), "last good ones stay") {
		t.Errorf("log %q, want that the last good ones stay, and no token", log.String())
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	expect("no file", admin.NoRole, admin.Operate)
	writeFile(t, name, tokenLines)
	expect("back again", admin.View, admin.Operate)
}

// TestOpenTokenFileIsAWarning: who can read a token can operate.
func TestOpenTokenFileIsAWarning(t *testing.T) {
	name := writeFile(t, filepath.Join(t.TempDir(), "tokens"), tokenLines)
	for mode, warns := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o660: true, 0o602: true} {
		var log bytes.Buffer
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.OpenTokens(name, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "open to others") && strings.Contains(log.String(), "chmod 600"); got != warns {
			t.Errorf("mode %o: log %q, want a warning: %v", mode, log.String(), warns)
		}
	}
}

func TestBadTokenFiles(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "got no token"},
		{"# nothing\n", "got no token"},
		{"operate tooshort\n", ":1: want a role (view or operate), a space, and a token of at least 16"},
		{"\nadmin " + operateToken + "\n", ":2: want a role"},
		{operateToken + "\n", ":1: want a role"},
		{"view " + viewToken + " more\n", ":1: want a role"},
		{strings.Repeat("x", 1<<17), "token too long"},
	} {
		_, err := admin.OpenTokens(writeFile(t, filepath.Join(t.TempDir(), "tokens"), test.text), slog.Default())
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), operateToken) {
			t.Errorf("%.40q: %v, want %q and no token", test.text, err, test.want)
		}
	}
	if _, err := admin.OpenTokens(filepath.Join(t.TempDir(), "none"), slog.Default()); err == nil {
		t.Error("a file that is not there was read")
	}
}

// TestCurl speaks the JSON that people type, of which the details of errors are a
// part.
func TestCurl(t *testing.T) {
	r := newRig(t)
	const service = "/sluice.admin.v1.AdminService/"
	status, answer := r.post(service+"SetWeights",
		`{"model":"fraud","weights":{"v7":50,"v8":50},"intent":{"actor":"anna","reason":"by hand"}}`)
	if status != http.StatusOK || !strings.Contains(answer, `"revision":"2"`) || !strings.Contains(answer, `"reason":"by hand"`) {
		t.Errorf("SetWeights = %d %s", status, answer)
	}
	status, answer = r.post(service+"SetWeights", `{"model":"fraud","weights":{"v10":50},"intent":{"actor":"anna"}}`)
	for _, want := range []string{`"code":"invalid_argument"`, `"reason":"INVALID"`, `"field":"weights.v10"`, `want one of the route's versions`} {
		if status != http.StatusBadRequest || !strings.Contains(answer, want) {
			t.Errorf("SetWeights = %d %s, want %s", status, answer, want)
		}
	}
	status, answer = r.post(service+"SetWeights", `{"modle":"fraud"}`)
	if status != http.StatusBadRequest || !strings.Contains(answer, "modle") {
		t.Errorf("a field that does not exist: %d %s, want it named", status, answer)
	}
}

// TestPagesOfOthersAreRefused: on loopback there is no token, and a browser on the
// same machine asks on behalf of whoever made the page.
func TestPagesOfOthersAreRefused(t *testing.T) {
	r := newRig(t)
	const get = "/sluice.admin.v1.AdminService/Get"
	for _, test := range []struct {
		name   string
		header []string
		want   int
	}{
		{"curl", nil, http.StatusOK},
		{"localhost", []string{"Host", "localhost:8002"}, http.StatusOK},
		{"an address", []string{"Host", "[::1]:8002"}, http.StatusOK},
		{"another site", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"another origin", []string{"Origin", "https://example.org"}, http.StatusForbidden},
		{"a name that points here", []string{"Host", "evil.example.org:8002"}, http.StatusForbidden},
	} {
		if got, answer := r.post(get, "{}", test.header...); got != test.want {
			t.Errorf("%s: status %d (%s), want %d", test.name, got, answer, test.want)
		}
	}
}

// TestGRPC speaks gRPC with grpc-go, over HTTP/2 without TLS.
func TestGRPC(t *testing.T) {
	r := newRig(t, func(c *admin.Config) { c.Tokens = openTokens(t, tokenLines) })
	conn, err := grpc.NewClient(strings.TrimPrefix(r.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+operateToken)
	resp := new(adminv1.SetWeightsResponse)
	req := &adminv1.SetWeightsRequest{Intent: by("anna"), Model: "fraud", Weights: map[string]uint32{"v7": 1}}
	if err := conn.Invoke(ctx, adminv1connect.AdminServiceSetWeightsProcedure, req, resp); err != nil || resp.GetOutcome().GetRevision() != 2 {
		t.Errorf("SetWeights = %v, %v", resp, err)
	}
	req.Weights = map[string]uint32{"v10": 1}
	err = conn.Invoke(ctx, adminv1connect.AdminServiceSetWeightsProcedure, req, resp)
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || len(s.Details()) != 2 {
		t.Errorf("a refusal = %v with %v, want INVALID_ARGUMENT with two details", s, s.Details())
	}
	err = conn.Invoke(t.Context(), adminv1connect.AdminServiceSetWeightsProcedure, req, resp)
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token = %v, want UNAUTHENTICATED", err)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, adminv1connect.AdminServiceWatchProcedure)
	if err != nil {
		t.Fatal(err)
	}
	first := new(adminv1.WatchResponse)
	if err := stream.SendMsg(&adminv1.WatchRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(first); err != nil || first.GetRevision() != 2 {
		t.Errorf("Watch = %v, %v", first, err)
	}
}

func TestGRPCWeb(t *testing.T) {
	r := newRig(t)
	client := adminv1connect.NewAdminServiceClient(r.http, r.url, connect.WithGRPCWeb())
	if resp, err := client.Get(t.Context(), &adminv1.GetRequest{}); err != nil || resp.GetRevision() != 1 {
		t.Errorf("Get = %v, %v", resp, err)
	}
	status, answer := r.post(adminv1connect.AdminServiceGetProcedure, "\x00\x00\x00\x00\x00", "Content-Type", "application/grpc-web+proto")
	if status != http.StatusOK || !strings.Contains(answer, "grpc-status: 0") {
		t.Errorf("by hand: %d %q, want a status in the trailing frame", status, answer)
	}
}
