package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/gateway/identify"
	"sluice/routing"
)

func TestTimeouts(t *testing.T) {
	const none = -1
	for _, c := range []struct {
		kind      identify.Kind
		def, most time.Duration // of the route
		own, want time.Duration
	}{
		{identify.KindUnary, 0, 0, none, 15 * time.Second},
		{identify.KindUnary, 0, 0, 0, 0},
		{identify.KindUnary, 0, 0, time.Minute, time.Minute},
		{identify.KindUnary, 0, 0, time.Hour, 300 * time.Second},
		{identify.KindUnary, 2 * time.Second, 0, none, 2 * time.Second},
		{identify.KindUnary, 2 * time.Second, 0, time.Hour, 300 * time.Second},
		{identify.KindUnary, 0, 10 * time.Second, none, 10 * time.Second},
		{identify.KindUnary, 0, time.Hour, none, 15 * time.Second},
		{identify.KindUnary, 0, time.Hour, 2 * time.Hour, time.Hour},
		{identify.KindUnary, 2 * time.Second, 3 * time.Second, time.Minute, 3 * time.Second},
		{identify.KindStream, 0, 0, none, none},
		{identify.KindStream, 0, 0, time.Hour, time.Hour},
		{identify.KindUnknown, 0, 0, none, none},
		{identify.KindUnknown, 0, 0, time.Hour, time.Hour},
		{identify.KindStream, 2 * time.Second, 0, none, 2 * time.Second},
		{identify.KindStream, 0, time.Minute, none, 15 * time.Second},
		{identify.KindStream, 0, time.Minute, time.Hour, time.Minute},
		{identify.KindUnknown, 0, time.Minute, time.Second, time.Second},
	} {
		got, ok := timeout(c.own, c.own != none, c.kind, &routing.Route{DefaultTimeout: c.def, MaxTimeout: c.most})
		if !ok {
			got = none
		}
		if got != c.want {
			t.Errorf("kind %d, route %v and at most %v, own %v: got %v, want %v", c.kind, c.def, c.most, c.own, got, c.want)
		}
	}
}

// parseTimeout reads a grpc-timeout field.
func parseTimeout(t *testing.T, v string) time.Duration {
	t.Helper()
	n, err := strconv.Atoi(v[:len(v)-1])
	if err != nil {
		t.Fatalf("grpc-timeout %q", v)
	}
	return time.Duration(n) * map[byte]time.Duration{
		'n': time.Nanosecond, 'u': time.Microsecond, 'm': time.Millisecond, 'S': time.Second, 'M': time.Minute, 'H': time.Hour,
	}[v[len(v)-1]]
}

// The server is told what is left.
func TestTimeoutThatReachesTheServer(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo("", s.addr)+fmt.Sprintf(`
  - model: limited
    services: [shop.Till]
    versions: [{name: v1, endpoints: [%q]}]
    weights: {v1: 1}
    timeout: {default: 2s, max: 4s}
`, s.addr))
	for _, c := range []struct {
		path, model, own string
		want             time.Duration // 0: none
	}{
		{modelInfer, "fraud", "", 15 * time.Second},
		{modelInfer, "fraud", "7S", 7 * time.Second},
		{modelInfer, "fraud", "20H", 300 * time.Second},
		{modelInfer, "limited", "", 2 * time.Second},
		{modelInfer, "limited", "1M", 4 * time.Second},
		{modelStreamInfer, "fraud", "", 0},
		{modelStreamInfer, "fraud", "20H", 20 * time.Hour},
		{modelStreamInfer, "limited", "", 2 * time.Second},
		{modelStreamInfer, "limited", "1M", 4 * time.Second},
		{"/shop.Till/Ring", "limited", "", 2 * time.Second},
	} {
		var fields []string
		if c.own != "" {
			fields = []string{"grpc-timeout", c.own}
		}
		if a := r.call(c.path, infer(c.model, ""), fields...); a.code != codes.OK {
			t.Fatalf("%+v: got %v %q", c, a.code, a.message)
		}
		got := s.last(t).one("grpc-timeout")
		if c.want == 0 {
			if got != "" {
				t.Errorf("%+v: the server got %q, want none", c, got)
			}
			continue
		}
		if left := parseTimeout(t, got); left > c.want || left < c.want-time.Second {
			t.Errorf("%+v: the server got %q, want %v", c, got, c.want)
		}
	}
}

// hangs answers when the call is over.
func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func TestDeadlineEndsAHungCall(t *testing.T) {
	t.Parallel()
	r := start(t, routeTo("", serve(t, hangs).addr)+"    timeout: {default: 1s}\n")
	a := r.call(modelInfer, infer("fraud", ""))
	if a.code != codes.DeadlineExceeded || a.info().GetReason() != "DEADLINE" || a.one("sluice-version") != "v7" || a.one("sluice-attempts") != "1" {
		t.Errorf("got %v %q, %v, fields %v", a.code, a.message, a.details, a.header)
	}
	if a.retryInfo() {
		t.Errorf("details %v tell to come again: nothing says that waiting helps", a.details)
	}
}

// A call has to say where it is for within the caller's own deadline.
func TestDeadlineRunsBeforeTheModelIsKnown(t *testing.T) {
	r := start(t, routeTo("", "127.0.0.1:1"))
	body, stop := io.Pipe()
	defer stop.Close()
	go func() { _, _ = stop.Write([]byte{0, 0}) }()
	ctx, cancel := context.WithTimeout(t.Context(), patience/2)
	defer cancel()
	a, err := r.try(ctx, modelInfer, body, "grpc-timeout", "100m")
	if err != nil {
		t.Fatal(err)
	}
	if a.code != codes.DeadlineExceeded || a.info().GetReason() != "DEADLINE" || a.one("sluice-attempts") != "0" {
		t.Errorf("got %v %q, fields %v", a.code, a.message, a.header)
	}
}
