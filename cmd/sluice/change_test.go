package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
)

// TestLostAnswersAreNotTakenForNothingDone: what became of a change whose answer was lost is
// asked for again, until somebody knows. "Nothing was changed by this request" is no answer
// to that.
func TestLostAnswersAreNotTakenForNothingDone(t *testing.T) {
	t.Parallel()
	refusal := func(code connect.Code, reason string) error {
		e := connect.NewError(code, errors.New(reason))
		d, err := connect.NewErrorDetail(&errdetails.ErrorInfo{Reason: reason, Domain: admin.Domain})
		if err != nil {
			t.Fatal(err)
		}
		e.AddDetail(d)
		return e
	}
	var (
		cut         = connect.NewError(connect.CodeUnavailable, errors.New("unexpected EOF"))
		unknown     = refusal(connect.CodeUnavailable, admin.ReasonOutcomeUnknown)
		unavailable = refusal(connect.CodeUnavailable, admin.ReasonStoreUnavailable)
		stateless   = refusal(connect.CodeUnavailable, admin.ReasonNoState)
		conflict    = refusal(connect.CodeAborted, admin.ReasonConflict)
		refused     = refusal(connect.CodeFailedPrecondition, admin.ReasonStoreRefused)
		stranger    = refusal(connect.CodeUnauthenticated, admin.ReasonTokenMissing)
		hung        = connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)
		broken      = connect.NewError(connect.CodeInternal, errors.New("stream error: INTERNAL_ERROR"))
		proxy       = connect.NewError(connect.CodeUnknown, errors.New("500 Internal Server Error"))
		closed      = connect.NewError(connect.CodePermissionDenied, errors.New("403 Forbidden")) // by a proxy
		nobody      = connect.NewError(connect.CodeUnavailable, &net.OpError{Op: "dial", Err: errors.New("connection refused")})
	)
	for _, test := range []struct {
		name    string
		answers []error
		want    error // nil for the change that was made
		asked   int
	}{
		{"made", []error{nil}, nil, 1},
		{"refused", []error{conflict}, conflict, 1},
		{"without a store", []error{unavailable}, unavailable, 1},
		{"found out", []error{cut, nil}, nil, 2},
		{"found not to be made", []error{unknown, conflict}, conflict, 2},
		{"the store goes away", []error{unknown, unavailable, unavailable}, unknown, 3},
		{"the gateway starts anew without it", []error{cut, stateless, unavailable}, cut, 3},
		{"the store comes back", []error{unknown, unavailable, nil}, nil, 3},
		{"the gateway hangs", []error{hung, nil}, nil, 2},
		{"the gateway breaks the call off", []error{broken, nil}, nil, 2},
		{"a proxy answers", []error{proxy, proxy, proxy}, proxy, 3},
		{"a proxy lets nobody in", []error{closed}, closed, 1},
		{"it does so after the first", []error{cut, closed, conflict}, conflict, 3},
		{"the token ends", []error{cut, stranger, stranger}, cut, 3},
		{"a store that refuses everything", []error{unknown, refused, refused}, unknown, 3},
		{"nobody is there", []error{nobody, nobody, nobody}, nobody, 3},
		{"nobody is there any more", []error{cut, nobody, nobody}, cut, 3},
		{"the gateway comes back", []error{nobody, nobody, nil}, nil, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			got, err := repeatedly(t.Context(), &client{where: "http://gateway"}, func(_ context.Context, _ *client, in *adminv1.Intent) (answer, error) {
				if in.GetRequestKey() != "k" {
					t.Errorf("asked with the key %q, want it every time", in.GetRequestKey())
				}
				err := test.answers[asked]
				asked++
				if err != nil {
					return nil, err
				}
				return &adminv1.SetWeightsResponse{}, nil
			}, &adminv1.Intent{RequestKey: "k"})
			if asked != test.asked || !errors.Is(err, test.want) || (got != nil) != (test.want == nil) {
				t.Errorf("asked %d times, got %v and %v, want %d and %v", asked, got, err, test.asked, test.want)
			}
		})
	}
}

// TestWhatElseAnswersIsNoWordOfTheGateway: between the command and the gateway something
// passes on what it is asked and then answers by itself, or not at all. The change is made, and
// whoever asked for it either learns that or is told that it is not known.
func TestWhatElseAnswersIsNoWordOfTheGateway(t *testing.T) {
	const doubt = "it is not known whether this was done"
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	weights := []string{"weights", "fraud", "v7=1", "--yes", "--actor", "anna"}
	cutOff := []string{"breaker", "open", "fraud", "v8", "--local", "--actor", "anna"}
	for name, test := range map[string]struct {
		command []string
		instead func(http.ResponseWriter, *http.Request) // of the gateway's answer
		times   int
		code    int
		says    string
	}{
		"once, an error":         {weights, status(http.StatusInternalServerError), 1, 0, "revision 2"},
		"once, nothing":          {weights, abort, 1, 0, "revision 2"},
		"an error again":         {weights, status(http.StatusInternalServerError), changeAttempts, exitFailure, doubt},
		"a time-out":             {weights, status(http.StatusGatewayTimeout), changeAttempts, exitFailure, doubt},
		"nothing again":          {weights, abort, changeAttempts, exitFailure, doubt},
		"an order here, nothing": {cutOff, abort, 1, exitFailure, doubt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alive := startModelServer(t)
			s := startServe(t, "--store", "memory", "--routes", writeRoutes(t, t.TempDir()+"/routes.yaml", alive, alive))
			var lost atomic.Int32
			s.admin = startProxy(t, s.admin, func(body []byte) func(http.ResponseWriter, *http.Request) {
				req := new(adminv1.OpenBreakerRequest) // whose intent stands where those of others do
				if err := proto.Unmarshal(body, req); err != nil {
					t.Error(err)
				}
				if req.GetIntent().GetDryRun() || lost.Add(1) > int32(test.times) {
					return nil
				}
				return test.instead
			})
			out, code := s.sluice(test.command...)
			if code != test.code || !strings.Contains(out, test.says) {
				t.Errorf("exit code %d and\n%s\nwant %d and %q", code, out, test.code, test.says)
			}
			if lost.Load() < int32(test.times) {
				t.Errorf("only %d answers were lost, want %d", lost.Load(), test.times)
			}
		})
	}
}

// startProxy passes on what it is asked, and the answer, unless something is to be answered
// instead.
func startProxy(t *testing.T, to string, instead func(body []byte) func(http.ResponseWriter, *http.Request)) string {
	t.Helper()
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: plain}
	t.Cleanup(transport.CloseIdleConnections)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+to+r.URL.Path, strings.NewReader(string(body)))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = r.Header.Clone()
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		if other := instead(body); other != nil {
			other(w, r)
			return
		}
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		if _, err := io.Copy(w, resp.Body); err != nil {
			t.Error(err)
		}
	}))
	server.Config.Protocols = plain
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestInterruptedChangesAreInDoubt: what was asked for may be made although nobody waits for
// the answer.
func TestInterruptedChangesAreInDoubt(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	_, err := repeatedly(ctx, &client{where: "http://gateway"}, func(ctx context.Context, _ *client, _ *adminv1.Intent) (answer, error) {
		interrupt()
		<-ctx.Done()
		return nil, connect.NewError(connect.CodeCanceled, ctx.Err())
	}, &adminv1.Intent{RequestKey: "k"})
	if want := "it is not known whether this was done: interrupted (try: sluice history"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestNothingToChangeIsNotConcludedFromADryRun: the gateway that makes it may have seen less
// than its store.
func TestNothingToChangeIsNotConcludedFromADryRun(t *testing.T) {
	t.Parallel()
	alive := startModelServer(t)
	s := startServe(t, "--store", "memory", "--routes", writeRoutes(t, t.TempDir()+"/routes.yaml", alive, alive))
	var asked []bool
	var o changeOptions
	cmd := newWeightsCommand()
	cmd.SetOut(io.Discard)
	cmd.SetContext(t.Context())
	o.client.admin, o.output, o.actor = s.admin, asTable, "anna"
	err := o.run(cmd, func(_ context.Context, _ *client, in *adminv1.Intent) (answer, error) {
		asked = append(asked, in.GetDryRun())
		if in.GetDryRun() {
			return &adminv1.SetWeightsResponse{Outcome: &adminv1.Outcome{Revision: 5}}, nil
		}
		if in.GetUnchangedSince() != 5 || in.GetRequestKey() == "" {
			t.Errorf("asked with %v, want what was looked at, and a key", in)
		}
		return nil, connect.NewError(connect.CodeAborted, errors.New("berta was faster"))
	})
	if err == nil || fmt.Sprint(asked) != "[true false]" {
		t.Errorf("%v after %v, want what the store says", err, asked)
	}
}
