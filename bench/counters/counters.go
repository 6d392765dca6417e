// Package counters is what the bench's backend has seen, as it counts it and as
// the harness reads it. A measurement is only believed if these numbers agree
// with the load generator's.
package counters

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
)

// Addresses is what the backend prints once it serves, as one line of JSON.
type Addresses struct {
	Data   string `json:"data"`             // gRPC, plaintext
	Secure string `json:"secure,omitempty"` // gRPC with TLS, if there is a certificate
	Copies string `json:"copies"`           // gRPC, plaintext; what comes here is answered and not counted
	Report string `json:"report"`           // HTTP, GET /counters
}

// Method counts the calls of one method.
type Method struct {
	Begun        atomic.Uint64 // calls whose headers arrived
	Answered     atomic.Uint64 // calls answered in full with status OK
	RequestBytes atomic.Uint64 // request messages received, without framing
}

// Counters counts calls by method. It is safe for concurrent use.
type Counters struct {
	methods sync.Map // string -> *Method
}

// New returns counters that stand at zero.
func New() *Counters { return &Counters{} }

// Of returns the counters of one method, by its full name ("/package.Service/Method").
func (c *Counters) Of(method string) *Method {
	if m, ok := c.methods.Load(method); ok {
		return m.(*Method)
	}
	m, _ := c.methods.LoadOrStore(method, new(Method))
	return m.(*Method)
}

// Totals are the counters of one method at one moment.
type Totals struct {
	Begun        uint64 `json:"begun"`
	Answered     uint64 `json:"answered"`
	RequestBytes uint64 `json:"request_bytes"`
}

// Minus returns what happened since an earlier moment.
func (t Totals) Minus(earlier Totals) Totals {
	return Totals{
		Begun:        t.Begun - earlier.Begun,
		Answered:     t.Answered - earlier.Answered,
		RequestBytes: t.RequestBytes - earlier.RequestBytes,
	}
}

// Snapshot maps methods to their totals.
type Snapshot map[string]Totals

// Snapshot returns the current totals of all methods.
func (c *Counters) Snapshot() Snapshot {
	out := make(Snapshot)
	c.methods.Range(func(name, value any) bool {
		m := value.(*Method)
		out[name.(string)] = Totals{m.Begun.Load(), m.Answered.Load(), m.RequestBytes.Load()}
		return true
	})
	return out
}

// ServeHTTP writes the snapshot as JSON.
func (c *Counters) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	// A reader that has gone away is the reader's affair.
	_ = json.NewEncoder(w).Encode(c.Snapshot())
}

// Fetch reads the snapshot of the backend that reports on address.
func Fetch(ctx context.Context, address string) (Snapshot, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/counters", nil)
	if err != nil {
		return nil, fmt.Errorf("backend counters: %w", err)
	}
	// Seldom asked: a connection kept open would only be one more thing running.
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("backend counters: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("backend counters: %s", response.Status)
	}
	var out Snapshot
	if err := json.NewDecoder(response.Body).Decode(&out); err != nil {
		return nil, fmt.Errorf("backend counters: %w", err)
	}
	return out, nil
}
