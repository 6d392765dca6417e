package sample

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDataSetIsWhole(t *testing.T) {
	rows := Penguins()
	counts := make(map[string]int)
	incomplete := 0
	for _, row := range rows {
		counts[row.Species]++
		if !row.Complete() {
			incomplete++
		}
	}
	// As published: https://doi.org/10.5281/zenodo.3960218.
	want := map[string]int{"Adelie": 152, "Chinstrap": 68, "Gentoo": 124}
	for species, n := range want {
		if counts[species] != n {
			t.Errorf("%s: got %d rows, want %d", species, counts[species], n)
		}
	}
	if len(rows) != 344 || len(counts) != len(want) || incomplete != 2 {
		t.Errorf("got %d rows, %d species, %d incomplete; want 344, 3, 2", len(rows), len(counts), incomplete)
	}
	first := Row{Species: "Adelie", Measurements: Measurements{39.1, 18.7, 181, 3750}}
	if rows[0] != first {
		t.Errorf("first row = %v, want %v", rows[0], first)
	}
	const published = "f204db2c753b0937caac3cb35258562c14f073e4bbc76be24b4c51ce22767a93"
	if got := DataSHA256(); got != published {
		t.Errorf("DataSHA256() = %s, want %s, as sample/data/README.md says", got, published)
	}
}

func TestReadRowsNamesWhatIsWrong(t *testing.T) {
	const header = "species,bill_length_mm,bill_depth_mm,flipper_length_mm,body_mass_g\n"
	for _, test := range []struct{ name, csv, want string }{
		{"empty", "", "header: EOF"},
		{"no label", "bill_length_mm\n", `header: no column "species"`},
		{"no feature", "species,bill_length_mm\n", `header: no column "bill_depth_mm"`},
		{"species", header + "Emperor,1,2,3,4\n", `line 2: species: got "Emperor", want one of`},
		{"word", header + "Adelie,1,2,3,4\nGentoo,1,2,long,4\n", `line 3: flipper_length_mm: got "long", want a positive number or NA`},
		{"negative", header + "Adelie,-1,2,3,4\n", `bill_length_mm: got "-1", want a positive number or NA`},
		{"infinite", header + "Adelie,1,2,3,Inf\n", `body_mass_g: got "Inf", want a positive number or NA`},
		{"lower case", header + "Adelie,1,2,3,nan\n", `body_mass_g: got "nan", want a positive number or NA`},
		{"short", header + "Adelie,1,2\n", "line 2: wrong number of fields"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := readRows(strings.NewReader(test.csv))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("readRows() = %v, want %q", err, test.want)
			}
		})
	}
}

func TestSplitDividesEverySpeciesAlike(t *testing.T) {
	train, held := Split()
	if len(train) != 256 || len(held) != 86 {
		t.Fatalf("Split() = %d and %d rows, want 256 and 86", len(train), len(held))
	}
	want := map[string]int{"Adelie": 38, "Chinstrap": 17, "Gentoo": 31} // a quarter of 151, 68, 123
	for _, row := range held {
		want[row.Species]--
	}
	for species, n := range want {
		if n != 0 {
			t.Errorf("%s: %d rows too few held back", species, n)
		}
	}
}

// TestSplitLosesAndRepeatsNothing draws seeds and shares: both parts together
// are always the complete rows, each once.
func TestSplitLosesAndRepeatsNothing(t *testing.T) {
	rows := Penguins()
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		share := rapid.Float64Range(0, 1).Draw(t, "share")
		train, held := StratifiedSplit(rows, share, seed)

		left := make(map[Row]int) // penguins with equal measurements exist
		for _, row := range rows {
			if row.Complete() {
				left[row]++
			}
		}
		for _, row := range append(train, held...) {
			if left[row]--; left[row] == 0 {
				delete(left, row)
			}
		}
		if len(left) != 0 || len(train)+len(held) != 342 {
			t.Fatalf("parts of %d and %d rows; lost or repeated: %v", len(train), len(held), left)
		}
		if off := math.Abs(float64(len(held)) - 342*share); off > 1.5 {
			t.Fatalf("held back %d rows, want a share of %v", len(held), share)
		}
	})
}

func TestSplitDependsOnTheSeedAlone(t *testing.T) {
	rows := Penguins()
	_, a := StratifiedSplit(rows, HeldBack, 7)
	_, b := StratifiedSplit(rows, HeldBack, 7)
	_, c := StratifiedSplit(rows, HeldBack, 8)
	if !slices.Equal(a, b) {
		t.Error("two splits with one seed differ")
	}
	if slices.Equal(a, c) {
		t.Error("another seed holds back the same rows")
	}
}
