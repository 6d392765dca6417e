package redisstore

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// FuzzDecode reads whatever may stand in Redis: what is accepted says what its
// key says.
func FuzzDecode(f *testing.F) {
	s := &Store{keys: newKeys("sluice")}
	change := &routingv1.Change{Revision: 7, Id: "id", Reason: strings.Repeat("long ", compressAbove)}
	fields, _, err := encodeChange(change)
	if err != nil {
		f.Fatal(err)
	}
	packed := fields[1].([]byte)
	entry, err := proto.Marshal(&routingv1.StoredRoute{Model: "m", Route: &routingv1.Route{Model: "m"}, Revision: 7})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{packed, packed[:len(packed)/2], entry, {0xff}, nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, field := range []string{changeField, compressedField} {
			c, err := s.decodeChange(redis.XMessage{ID: "7-0", Values: map[string]any{field: string(data)}})
			if err == nil && (c.GetRevision() != 7 || c.GetId() == "") {
				t.Errorf("accepted %v as revision 7", c)
			}
		}
		e, err := decodeEntry("m", string(data))
		if err == nil && (e.GetModel() != "m" || e.GetRoute() != nil && e.GetRoute().GetModel() != "m") {
			t.Errorf("accepted %v as an entry of m", e)
		}
		for i := range 5 {
			values := []any{"1", "id", "1", "2026-01-01T00:00:00Z", "1"}
			values[i] = string(data)
			if h, err := s.decodeHead(values, 1); err == nil && (h.Revision == 0 || h.ID == "") {
				t.Errorf("accepted %v as a head", values)
			}
		}
	})
}

// TestLongChangesComeBack: both forms of an entry.
func TestLongChangesComeBack(t *testing.T) {
	s := &Store{keys: newKeys("sluice")}
	for _, size := range []int{0, compressAbove - 100, compressAbove, 1 << 20} {
		want := &routingv1.Change{Revision: 3, Id: "id", Reason: strings.Repeat("x", size)}
		fields, _, err := encodeChange(want)
		if err != nil {
			t.Fatal(err)
		}
		value := string(fields[1].([]byte))
		got, err := s.decodeChange(redis.XMessage{ID: "3-0", Values: map[string]any{fields[0].(string): value}})
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%d bytes: %v, want them back", size, err)
		}
		if size > compressAbove && len(value) > size/10 {
			t.Errorf("%d bytes take %d", size, len(value))
		}
	}
}

// FuzzParseURL: no error and no name repeats a password, however it is mistyped.
func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{
		"redis://u:SECRET@h:1/2?prefix=a", "redis+sentinel://SECRET@a,b/m/1", "rediss://h?sentinel_password=SECRET",
		"redis://u:SECRET/x@h", "redis://u:SECRET?x@h", "redis://u:%SECRET@h", "redis://:SECRET@@h", "redis+cluster://u:SECRET@a,b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, rest, _ := strings.Cut(text, "://")
		target, err := parseURL(text)
		if err == nil {
			if target.options(Config{}) == nil || len(target.addrs) == 0 {
				t.Errorf("parseURL(%q) names no address", text)
			}
			if strings.Count(rest, "SECRET") == 1 && strings.Contains(target.password+target.user+target.sentinelPassword, "SECRET") && strings.Contains(target.name, "SECRET") {
				t.Errorf("the name %s holds the password of %q", target.name, text)
			}
			return
		}
		if strings.Count(rest, "SECRET") == 1 && strings.Index(rest, "SECRET") < strings.LastIndex(rest, "@") && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("parseURL(%q) = %v", text, err)
		}
	})
}
