package identify_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"sluice/gateway/identify"
)

func TestMetadata(t *testing.T) {
	long := strings.Repeat("m", identify.MaxName+1)
	type fields [][2]string
	tests := []struct {
		name   string
		fields fields
		want   identify.Metadata
		reason identify.Reason // 0 = accepted
	}{
		{name: "nothing", fields: fields{{"content-type", "application/grpc"}}},
		{name: "own key", fields: fields{{"sluice-model", "fraud"}}, want: identify.Metadata{Model: "fraud"}},
		{name: "seldon", fields: fields{{"seldon-model", "fraud"}}, want: identify.Metadata{Model: "fraud"}},
		{name: "modelmesh", fields: fields{{"mm-model-id", "fraud"}}, want: identify.Metadata{Model: "fraud"}},
		{name: "modelmesh virtual", fields: fields{{"mm-vmodel-id", "fraud"}}, want: identify.Metadata{Model: "fraud"}},
		{name: "gateway api", fields: fields{{"x-gateway-model-name", "fraud"}}, want: identify.Metadata{Model: "fraud"}},
		{name: "commas are part of a name", fields: fields{{"sluice-model", "a,b"}}, want: identify.Metadata{Model: "a,b"}},
		{name: "a joined value is not its parts", fields: fields{{"sluice-model", "a"}, {"sluice-model", "a,a"}}, reason: identify.Conflict},
		{name: "same name twice", fields: fields{{"sluice-model", "a"}, {"sluice-model", "a"}}, want: identify.Metadata{Model: "a"}},
		{name: "aliases agree", fields: fields{{"seldon-model", "a"}, {"sluice-model", "a"}}, want: identify.Metadata{Model: "a"}},
		{name: "aliases differ", fields: fields{{"seldon-model", "a"}, {"mm-model-id", "b"}}, reason: identify.Conflict},
		{name: "values differ", fields: fields{{"sluice-model", "a"}, {"sluice-model", "b"}}, reason: identify.Conflict},
		{name: "case matters", fields: fields{{"sluice-model", "a"}, {"sluice-model", "A"}}, reason: identify.Conflict},
		{name: "empty names nothing", fields: fields{{"sluice-model", "a"}, {"seldon-model", ""}}, want: identify.Metadata{Model: "a"}},
		{name: "empty first", fields: fields{{"sluice-model", ""}, {"seldon-model", "a"}}, want: identify.Metadata{Model: "a"}},
		{name: "too long", fields: fields{{"sluice-model", long}}, reason: identify.Malformed},
		{name: "version and key", fields: fields{{"sluice-version", "v8"}, {"sluice-key", "k"}},
			want: identify.Metadata{ForceVersion: "v8", Key: "k"}},
		{name: "versions differ", fields: fields{{"sluice-version", "v8"}, {"sluice-version", "v7"}}, reason: identify.Conflict},
		{name: "keys differ", fields: fields{{"sluice-key", "a"}, {"sluice-key", "b"}}, reason: identify.Conflict},
		{name: "compression", fields: fields{{"grpc-encoding", "gzip"}}, want: identify.Metadata{Encoding: "gzip"}},
		{name: "compressions differ", fields: fields{{"grpc-encoding", "gzip"}, {"grpc-encoding", "identity"}}, reason: identify.Conflict},
		{name: "request id", fields: fields{{"x-request-id", "r-1"}, {"x-request-id", "r-2"}}, want: identify.Metadata{RequestID: "r-1"}},
		{name: "request id with a space", fields: fields{{"x-request-id", "r 1"}, {"x-request-id", "r-2"}}, want: identify.Metadata{RequestID: "r-2"}},
		{name: "request id not ASCII", fields: fields{{"x-request-id", "r\xc3\xa4"}}},
		{name: "request id at its limit", fields: fields{{"x-request-id", strings.Repeat("r", 128)}},
			want: identify.Metadata{RequestID: strings.Repeat("r", 128)}},
		{name: "request id over its limit", fields: fields{{"x-request-id", strings.Repeat("r", 129)}}},
		{name: "only exact keys", fields: fields{{"sluice-model-bin", "a"}, {"Sluice-Model", "b"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m identify.Metadata
			var err error
			for _, f := range tt.fields {
				if err = m.Add(f[0], f[1]); err != nil {
					break
				}
			}
			if tt.reason != 0 {
				checkReason(t, err, tt.reason)
				return
			}
			if err != nil {
				t.Fatalf("Add: %v", err)
			}
			if m.Model != tt.want.Model || m.ForceVersion != tt.want.ForceVersion || m.Key != tt.want.Key ||
				m.RequestID != tt.want.RequestID || m.Encoding != tt.want.Encoding {
				t.Errorf("got %+v, want %+v", m, tt.want)
			}
		})
	}
}

func TestMetadataConflictNamesBothKeys(t *testing.T) {
	var m identify.Metadata
	if err := m.Add("seldon-model", "a"); err != nil {
		t.Fatal(err)
	}
	const want = `mm-model-id: got "b", want "a" as in seldon-model`
	if err := m.Add("mm-model-id", "b"); err == nil || err.Error() != want {
		t.Errorf("Add = %v, want %s", err, want)
	}
}

func TestValueIsTheFirstOfItsName(t *testing.T) {
	fields := []hpack.HeaderField{{Name: "x-user", Value: "0"}, {Name: "x-user-id", Value: "7"}, {Name: "x-user-id", Value: "8"}}
	if v, ok := identify.Value(fields, "x-user-id"); v != "7" || !ok {
		t.Errorf("Value = %q, %v, want 7", v, ok)
	}
	if v, ok := identify.Value(fields, "x-tenant"); ok {
		t.Errorf("Value of a field that is not there = %q, want none", v)
	}
}

func checkReason(t *testing.T, err error, want identify.Reason) {
	t.Helper()
	var e *identify.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	if e.Reason != want {
		t.Fatalf("got %v (%v), want %v", e.Reason, e, want)
	}
}
