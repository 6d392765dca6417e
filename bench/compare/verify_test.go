package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/bench/payload"
)

func TestAPeerWithOtherTLSIsRefusedAtOnce(t *testing.T) {
	files, trust, err := makeCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := payload.Answer(payload.AnswerSize)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write(answer) // a client that is gone has its reasons
		w.Header().Set("Grpc-Status", "0")
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	m := &member{peer: known("old"), trust: trust, address: server.Listener.Addr().String()}
	err = m.awaitAnswer(t.Context())
	if !errors.Is(err, errTerms) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "old: TLS on other terms: got TLS 1.2 with ") {
		t.Errorf("awaitAnswer = %v, want %v with what it is", err, errTerms)
	}
}
