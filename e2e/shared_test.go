package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"sluice/loopback"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
)

// shared is a gateway, as a process, that shares its routing state with others.
// Its addresses stay when it is started again.
type shared struct {
	*process
	t      testing.TB
	data   string
	admin  string // URL
	http   *http.Client
	client adminv1connect.AdminServiceClient
	args   []string
	state  string // the folder of its last good state
}

// startShared starts a gateway over a store, with further flags. A file of routes may be empty.
func startShared(t testing.TB, store, routes string, flags ...string) *shared {
	t.Helper()
	s := &shared{t: t, data: freeAddr(t), state: filepath.Join(t.TempDir(), "state")}
	admin := freeAddr(t)
	s.admin = "http://" + admin
	s.args = []string{
		"serve", "--listen", s.data, "--admin", admin, "--store", store, "--state-dir", s.state, "--drain-delay", "0s",
	}
	s.args = append(s.args, flags...)
	if routes != "" {
		file := filepath.Join(t.TempDir(), "routes.yaml")
		writeFile(t, file, routes)
		s.args = append(s.args, "--routes", file)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s.http = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	s.client = adminv1connect.NewAdminServiceClient(s.http, s.admin)
	s.start()
	return s
}

// start starts the process, again if it was killed.
func (s *shared) start() {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	s.process = startProcess(s.t, nil, path, s.args...)
	s.await(s.t, `sluice serves`)
}

// freeAddr returns an address on loopback that nobody listens on but who asked for it.
func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := loopback.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// setV1 gives v1 of the sample model a weight beside a constant one of v2.
func (s *shared) setV1(weight uint32, alter ...func(*adminv1.Intent)) (*adminv1.Outcome, error) {
	in := &adminv1.Intent{Actor: "operator"}
	for _, f := range alter {
		f(in)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := s.client.SetWeights(ctx, &adminv1.SetWeightsRequest{
		Intent: in, Model: model, Weights: map[string]uint32{"v1": weight, "v2": 1000},
	})
	return resp.GetOutcome(), err
}

// undo rolls the sample model back.
func (s *shared) undo(alter func(*adminv1.Intent)) (*adminv1.Outcome, error) {
	in := &adminv1.Intent{Actor: "operator"}
	alter(in)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := s.client.Rollback(ctx, &adminv1.RollbackRequest{Intent: in, Model: model})
	return resp.GetOutcome(), err
}

// serves returns the weight of v1 that the gateway serves, and its revision.
func (s *shared) serves() (weight uint32, revision uint64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := s.client.Get(ctx, &adminv1.GetRequest{Model: model})
	if err != nil {
		return 0, 0, err
	}
	return resp.GetRoutes()[0].GetRoute().GetWeights()["v1"], resp.GetRevision(), nil
}

// awaitV1 waits until the gateway serves a weight of v1.
func (s *shared) awaitV1(weight uint32) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, fmt.Sprintf("v1=%d is served", weight), func() error {
		if got, revision, err := s.serves(); err != nil || got != weight {
			return errors.Join(err, fmt.Errorf("v1=%d at revision %d", got, revision))
		}
		return nil
	})
}

// standing returns how the gateway stands with its store.
func (s *shared) standing() *adminv1.StoreStatus {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := s.client.Status(ctx, &adminv1.StatusRequest{})
	if err != nil {
		s.t.Fatalf("status: %v", err)
	}
	return resp.GetStore()
}

// awaitProblem waits until the status names a problem; "" for none.
func (s *shared) awaitProblem(text string) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, fmt.Sprintf("the status says %q", text), func() error {
		problems := strings.Join(s.standing().GetProblems(), "\n")
		if text == "" && problems != "" || !strings.Contains(problems, text) {
			return fmt.Errorf("it says %q", problems)
		}
		return nil
	})
}

// metric returns the value of one series of /metrics, 0 if it is not there.
func (s *shared) metric(series string) float64 {
	s.t.Helper()
	resp, err := s.http.Get(s.admin + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(text)
	if m == nil {
		return 0
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// adminRefusal returns the gateway's ErrorInfo, empty if it sent none.
func adminRefusal(err error) (code connect.Code, info *errdetails.ErrorInfo) {
	info = new(errdetails.ErrorInfo)
	c, ok := err.(*connect.Error) //nolint:errorlint // it is one, unwrapped
	if !ok {
		return 0, info
	}
	for _, d := range c.Details() {
		if m, err := d.Value(); err == nil {
			if i, ok := m.(*errdetails.ErrorInfo); ok {
				info = i
			}
		}
	}
	return c.Code(), info
}
