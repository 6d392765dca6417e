package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"sluice/routing"
)

// check finds what is wrong with the flags themselves, all of it at once.
func (o *serveOptions) check() error {
	var problems []error
	refuse := func(flag, got, want string) {
		problems = append(problems, &routing.FieldError{Field: "--" + flag, Got: got, Want: want})
	}
	for _, a := range []struct {
		flag, address string
		off           bool
	}{{"listen", o.listen, false}, {"admin", o.admin, true}, {"metrics-listen", o.metrics, true}} {
		if a.off && (a.address == "" || a.address == "off") {
			continue
		}
		if !isAddress(a.address) {
			refuse(a.flag, fmt.Sprintf("%q", a.address), "HOST:PORT or :PORT, the port from 0 to 65535")
		}
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		given, missing := "tls-cert", "tls-key"
		if o.tlsCert == "" {
			given, missing = missing, given
		}
		refuse(given, "it alone", "--"+missing+" with it")
	}
	if o.ioThreads < ioThreadsAuto || o.ioThreads > maxIOThreads {
		refuse("io-threads", fmt.Sprint(o.ioThreads), fmt.Sprintf("0 to %d", maxIOThreads))
	}
	if o.drainDelay < 0 {
		refuse("drain-delay", o.drainDelay.String(), "0s or more")
	}
	if o.drainTimeout <= 0 {
		refuse("drain-timeout", o.drainTimeout.String(), fmt.Sprintf("more than 0s, such as %v", 30*time.Second))
	}
	if o.payloadKeep < time.Minute {
		refuse("payload-keep", o.payloadKeep.String(), "at least 1m0s")
	}
	if o.payloadMiB < 16 || o.payloadMiB > 1<<20 { // a sixteenth has room for the longest line
		refuse("payload-mib", fmt.Sprint(o.payloadMiB), "16 to 1048576")
	}
	return errors.Join(problems...)
}

// maxIOThreads is more than any machine has a use for.
const maxIOThreads = 256

// isAddress reports whether a text can be listened on.
func isAddress(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	_, err = net.LookupPort("tcp", port)
	return err == nil && port != ""
}
