package main

import (
	"io"
	"reflect"
	"strings"
	"testing"
)

// measured is a measurer that finds what is written: for each pool its measurements, of which each says
// what it finds by the name of what was measured. It keeps what was asked for.
type measured struct {
	finds map[pool][]map[string]verdict
	asked []string
}

func (m *measured) measure(into pool, run []string) (all []comparison, table string, err error) {
	m.asked = append(m.asked, string(into)+" "+strings.Join(run, ","))
	for what, v := range m.finds[into][0] {
		all = append(all, comparison{what, "Benchmark" + what, what + " in " + string(into), v})
	}
	m.finds[into] = m.finds[into][1:]
	return all, "table", nil
}

func TestSlowerIsWhatFreshMeasurementsSayToo(t *testing.T) {
	type says = []map[string]verdict
	for _, test := range []struct {
		name  string
		finds map[pool][]map[string]verdict
		want  findings
		asked []string
	}{
		{
			"once, by chance", map[pool][]map[string]verdict{first: says{{"a": slower, "b": fine}}, again: says{{"a": fine}}},
			findings{}, []string{"first ", "again Benchmarka"},
		},
		{
			"twice", map[pool][]map[string]verdict{first: says{{"a": slower}}, again: says{{"a": slower}}},
			findings{slower: []string{"a in again"}}, []string{"first ", "again Benchmarka"},
		},
		{
			"once, and then nobody knows", map[pool][]map[string]verdict{first: says{{"a": slower}}, again: says{{"a": undecided}, {"a": undecided}, {"a": undecided}}},
			findings{undecided: []string{"a in again"}}, []string{"first ", "again Benchmarka", "again Benchmarka", "again Benchmarka"},
		},
		{
			"only with more measurements", map[pool][]map[string]verdict{first: says{{"a": undecided}, {"a": slower}}, again: says{{"a": undecided}, {"a": slower}}},
			findings{slower: []string{"a in again"}}, []string{"first ", "first Benchmarka", "again Benchmarka", "again Benchmarka"},
		},
		{
			"what is measured beside it does not count", map[pool][]map[string]verdict{first: says{{"a": undecided, "b": fine}, {"a": fine, "b": slower}}},
			findings{}, []string{"first ", "first Benchmarka"},
		},
		{
			"what cannot be measured again is not cleared", map[pool][]map[string]verdict{first: says{{"a": slower}}, again: says{{}, {}, {}}},
			findings{undecided: []string{"a in first; not measured again"}}, []string{"first ", "again Benchmarka", "again Benchmarka", "again Benchmarka"},
		},
		{
			"nothing", map[pool][]map[string]verdict{first: says{{"a": fine}}}, findings{}, []string{"first "},
		},
	} {
		m := &measured{finds: test.finds}
		got, err := measurer(m.measure).settle(io.Discard, io.Discard)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: findings = %q, %v, want %q", test.name, got, err, test.want)
		}
		if !reflect.DeepEqual(m.asked, test.asked) {
			t.Errorf("%s: asked for %q, want %q", test.name, m.asked, test.asked)
		}
	}
}
