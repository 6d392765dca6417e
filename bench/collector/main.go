// Command collector takes what is exported by OTLP over HTTP on 127.0.0.1:4318 and forgets it, so that the cost
// of exporting can be measured.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	s := &http.Server{Addr: "127.0.0.1:4318", ReadHeaderTimeout: 10 * time.Second}
	s.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // an empty answer says that all was accepted
	})
	if err := s.ListenAndServe(); err != nil {
		fmt.Fprintln(os.Stderr, "collector:", err)
		os.Exit(1)
	}
}
