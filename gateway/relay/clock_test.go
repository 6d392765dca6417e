package relay

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// A reader that has waited since before a call began tells the time of what ends the call,
// not of what it read last.
func TestAttemptLostOnAQuietConnectionEndsAfterItBegan(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, true)
	server := up.accept()
	server.next("the first request", isHeaders(1))
	server.trailersOnly(1, "0")
	c.next("the first answer", isTrailers(1))
	time.Sleep(50 * time.Millisecond) // in which the connection to the server is quiet
	c.request(3, true)
	server.next("the second request", isHeaders(3))
	server.close()
	c.next("the second answer", isTrailers(3))
	for _, o := range g.policy.outcomes() {
		if o.Ended.Before(o.Started) {
			t.Errorf("%v: begun at %v and over %v before that", o.Kind, o.Started, o.Started.Sub(o.Ended))
		}
	}
}

// What a policy is asked about happens when it is asked, however long it took to find out
// that there is no connection.
func TestPolicyKnowsTheTimeAfterASlowDial(t *testing.T) {
	const slow = 100 * time.Millisecond
	waits := make(chan time.Duration, 1)
	p := &recorder{failed: func(c *Call, _ Outcome) Verdict {
		waits <- c.Now().Sub(c.Opened())
		return Pass()
	}}
	g := newRigTo(t, Config{}, UpstreamConfig{Addr: "slow:1", Dial: func(context.Context, string) (net.Conn, error) {
		time.Sleep(slow)
		return nil, errors.New("nobody there")
	}}, p)
	c := dialRaw(t, g.addr)
	c.request(1, true)
	c.next("the answer", isTrailers(1))
	if d := <-waits; d < slow {
		t.Errorf("the policy was told to be asked %v after the call had opened; the dial took %v", d, slow)
	}
}
