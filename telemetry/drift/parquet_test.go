package drift

import (
	"bytes"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift/stat"
)

// people.parquet was written by PyArrow 26.0.1, in three row groups and compressed by Zstandard; what its columns hold was
// computed by NumPy from the same arrays.
func people(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/people.parquet")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParquetFilesOfOtherToolsAreRead(t *testing.T) {
	data := people(t)
	features, err := FromParquet(bytes.NewReader(data), int64(len(data)), nil)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]*driftv1.Feature)
	var names []string
	for _, f := range features {
		found[f.GetName()] = f
		names = append(names, f.GetName())
	}
	if want := []string{"age", "big", "city", "day", "member", "price", "score", "visits"}; !slices.Equal(names, want) {
		t.Fatalf("features %q, want %q: all but the lists", names, want)
	}
	age := found["age"]
	if age.GetRows() != 1000 || age.GetMissing() != 20 || stat.Total(age.GetCounts()) != 980 {
		t.Errorf("age: %d rows, %d missing and %d counted, want 1000, 20, 980", age.GetRows(), age.GetMissing(), stat.Total(age.GetCounts()))
	}
	near(t, "mean of age", age.GetNumbers().GetMean(), 39.13275510204082)
	near(t, "sd of age", age.GetNumbers().GetSd(), 11.28555870422708)
	near(t, "mean of score", found["score"].GetNumbers().GetMean(), 0.5080298246002639)
	near(t, "mean of visits", found["visits"].GetNumbers().GetMean(),
		(147+2*263+3*210+4*149+5*96+6*43+7*21+8*9+9*4+10)/1000.0)
	for name, want := range map[string][]uint64{ // cells of single values, between those of what lies outside
		"visits": {57, 147, 263, 210, 149, 96, 43, 21, 9, 4, 1},
		"member": {768, 232},
		"price":  {258, 244, 260, 238},
	} {
		counts := found[name].GetCounts()
		if !slices.Equal(counts[1:len(counts)-1], want) {
			t.Errorf("%s: counts %v, want %v", name, counts, want)
		}
	}
	near(t, "mean of price", found["price"].GetNumbers().GetMean(), (0.25*244+0.5*260+0.75*238)/1000)
	if m := found["big"].GetNumbers().GetMean(); m < math.MaxInt64 {
		t.Errorf("mean of big = %v, want more than a number with a sign could be", m)
	}
	city := found["city"]
	if !slices.Equal(city.GetCategories().GetNames(), []string{"Bonn", "Köln"}) || city.GetCounts()[0] != 334 || city.GetMissing() != 333 {
		t.Errorf("city = %v, want Bonn 334 times, Köln, and 333 missing", city)
	}
}

// Written here: decimals of 64 bits, what is nested and what repeats.
func TestParquetColumnsOfOneValueARowAreRead(t *testing.T) {
	type inner struct {
		Deep float64 `parquet:"deep"`
	}
	type row struct {
		Amount int64     `parquet:"amount,decimal(2:18)"`
		Nested inner     `parquet:"nested"`
		Many   []float64 `parquet:"many"`
	}
	var file bytes.Buffer
	if err := parquet.Write(&file, []row{{150, inner{1}, []float64{1, 2}}, {250, inner{2}, nil}, {350, inner{3}, []float64{3}}}); err != nil {
		t.Fatal(err)
	}
	features, err := FromParquet(bytes.NewReader(file.Bytes()), int64(file.Len()), nil)
	if err != nil || len(features) != 1 || features[0].GetName() != "amount" {
		t.Fatalf("features %v, %v, want the amount alone", features, err)
	}
	near(t, "mean of amount", features[0].GetNumbers().GetMean(), 2.5)
	for _, name := range []string{"nested", "deep", "many"} {
		if _, err := FromParquet(bytes.NewReader(file.Bytes()), int64(file.Len()), []string{name}); err == nil || !strings.Contains(err.Error(), "no column") {
			t.Errorf("column %q: %v, want that there is none of numbers or strings", name, err)
		}
	}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-9*math.Abs(want) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func TestParquetColumnsThatCannotBeReadAreNamed(t *testing.T) {
	data := people(t)
	for _, tt := range []struct {
		data  []byte
		names []string
		want  string
	}{
		{data, []string{"income"}, `no column "income"`},
		{data, []string{"age", "tags"}, `no column "tags"`},
		{data[:len(data)/2], nil, ""},
		{data[:3], nil, ""},
	} {
		features, err := FromParquet(bytes.NewReader(tt.data), int64(len(tt.data)), tt.names)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("columns %q of %d bytes: %d features, %v, want an error with %q", tt.names, len(tt.data), len(features), err, tt.want)
		}
	}
	one, err := FromParquet(bytes.NewReader(data), int64(len(data)), []string{"score"})
	if err != nil || len(one) != 1 || one[0].GetName() != "score" {
		t.Errorf("one column: %v, %v", one, err)
	}
}
