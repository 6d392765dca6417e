package labels_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/telemetry/labels"
)

// identities draws what gateways put into ids.
func identities(t *rapid.T) *labels.Identity {
	name := rapid.StringMatching(`[!-~]{1,128}`)
	id := &labels.Identity{
		Nonce: rapid.Uint64().Draw(t, "nonce"), At: time.UnixMilli(rapid.Int64Range(0, 1<<45).Draw(t, "at")).UTC(),
		Model: name.Draw(t, "model"), Version: name.Draw(t, "version"),
	}
	id.Arm = rapid.SampledFrom([]string{"", id.Version, name.Draw(t, "arm")}).Draw(t, "which arm")
	switch p := &id.Prediction; rapid.IntRange(0, 2).Draw(t, "kind") {
	case 1:
		p.Kind, p.Classes = labels.Class, rapid.Uint32().Draw(t, "classes")
		p.Indexes = rapid.SliceOfN(rapid.Byte(), 1, 128).Draw(t, "rows")
		if n := rapid.IntRange(0, 32).Draw(t, "columns") * len(p.Indexes); n > 0 && n < 500 {
			p.Odds = rapid.SliceOfN(rapid.Uint16(), n, n).Draw(t, "odds")
		}
	case 2:
		p.Kind, p.Numbers = labels.Number, rapid.SliceOfN(rapid.Float64(), 1, 128).Draw(t, "numbers")
	}
	return id
}

func TestAnIDComesBackAsItWas(t *testing.T) {
	s := labels.NewSigner()
	rapid.Check(t, func(t *rapid.T) {
		id := identities(t)
		got, err := s.Parse(string(s.Append(nil, id)))
		if err != nil || !reflect.DeepEqual(got, id) {
			t.Fatalf("got %+v, %v, want %+v", got, err, id)
		}
	})
}

// One bit of an id that is otherwise, and it is nobody's.
func TestAChangedIDIsRefused(t *testing.T) {
	s := labels.NewSigner()
	rapid.Check(t, func(t *rapid.T) {
		plain, err := base64.RawURLEncoding.DecodeString(string(s.Append(nil, identities(t))))
		if err != nil {
			t.Fatal(err)
		}
		bit := rapid.IntRange(0, 8*len(plain)-1).Draw(t, "bit")
		plain[bit/8] ^= 1 << (bit % 8)
		want := labels.ErrSignature
		switch {
		case bit < 8:
			want = labels.ErrMalformed // another format
		case bit < 40:
			want = labels.ErrKey
		}
		if id, err := s.Parse(base64.RawURLEncoding.EncodeToString(plain)); !errors.Is(err, want) {
			t.Fatalf("bit %d changed: got %+v, %v, want %v", bit, id, err, want)
		}
	})
}

func TestAnIDHasOneSpelling(t *testing.T) {
	s := labels.NewSigner()
	text := string(s.Append(nil, &labels.Identity{Nonce: 1, At: time.UnixMilli(1), Model: "m", Version: "v"}))
	for _, other := range []string{text + "=", text + "\n", text[:3] + "\n" + text[3:], " " + text, text[:len(text)-1], text + "A", ""} {
		if _, err := s.Parse(other); !errors.Is(err, labels.ErrMalformed) && !errors.Is(err, labels.ErrSignature) {
			t.Errorf("%q: %v, want it refused", other, err)
		}
	}
	// The last character has bits that mean nothing, unless the length happens to be a multiple of four.
	if len(text)%4 == 0 {
		t.Fatalf("%d characters, want a length that shows it", len(text))
	}
	for _, last := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		other := text[:len(text)-1] + string(last)
		if _, err := s.Parse(other); err == nil && other != text {
			t.Errorf("%q is taken as well as %q", other, text)
		}
	}
	if _, err := labels.ParseBody(append(labels.AppendBody(nil, &labels.Identity{}), 0)); err == nil {
		t.Error("an id with something behind it is taken")
	}
}

func TestProbabilitiesSurviveTheirRounding(t *testing.T) {
	for _, p := range []float64{1e-7, 1e-5, 0.001, 0.1, 0.5, 0.9, 0.999, 1 - 1e-7} {
		q := labels.OfProbabilities(0, []float64{1 - p, p})
		got := q.Probabilities(0)
		if e := math.Abs(got[1]-p) / min(p, 1-p); e > 3e-4 || math.Abs(got[0]+got[1]-1) > 1e-15 {
			t.Errorf("probability %v becomes %v, off by %.2g of the smaller side, want at most 3e-4", p, got, e)
		}
	}
}

func keyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Gateways learn the new key first, then sign with it, then forget the old one.
func TestKeysAreChangedOneGatewayAfterTheOther(t *testing.T) {
	old, fresh := hex.EncodeToString(make([]byte, 32)), strings.Repeat("ab", 32)
	var signers []*labels.Signer
	for _, text := range []string{old, "# both\n" + old + " # signs\n\n" + fresh + "\n", fresh + "\n" + old, fresh} {
		s, err := labels.ReadSigner(keyFile(t, text))
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, s)
	}
	id := &labels.Identity{Nonce: 7, At: time.UnixMilli(1), Model: "m", Version: "v", Arm: "v"}
	for i, from := range signers {
		for j, to := range signers {
			_, err := to.Parse(string(from.Append(nil, id)))
			if neighbours := max(i, j)-min(i, j) <= 1; neighbours && err != nil {
				t.Errorf("step %d does not take ids of step %d: %v", j, i, err)
			}
		}
	}
	if _, err := signers[3].Parse(string(signers[0].Append(nil, id))); !errors.Is(err, labels.ErrKey) {
		t.Errorf("an id of a forgotten key: %v, want %v", err, labels.ErrKey)
	}
}

func TestBadKeyFilesAreRefusedWithoutRepeatingThem(t *testing.T) {
	secret := strings.Repeat("cd", 31)
	for _, text := range []string{"", "# nothing\n", secret, secret + "zz", strings.Repeat(strings.Repeat("ab", 32)+"\n", 9)} {
		_, err := labels.ReadSigner(keyFile(t, text))
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v, want an error that does not repeat it", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := labels.NewSigner()
	f.Add(string(s.Append(nil, &labels.Identity{Nonce: 1, At: time.UnixMilli(1), Model: "m", Version: "v"})), []byte{0})
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		if id, err := s.Parse(text); err == nil && string(s.Append(nil, id)) != text {
			t.Errorf("%q is taken and is not how %+v is written", text, id)
		}
		// What is signed and wrong all the same must not be taken for something else either.
		if id, err := labels.ParseBody(body); err == nil && string(labels.AppendBody(nil, id)) != string(body) {
			t.Errorf("%x is taken and is not how %+v is written", body, id)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s := labels.NewSigner()
	id := &labels.Identity{Nonce: 1, At: time.Now(), Model: "fraud", Version: "v7", Arm: "v7", Prediction: labels.OfProbabilities(1, []float64{0.1, 0.9})}
	room := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		room = s.Append(room[:0], id)
	}
}

func BenchmarkParse(b *testing.B) {
	s := labels.NewSigner()
	text := string(s.Append(nil, &labels.Identity{Nonce: 1, At: time.Now(), Model: "fraud", Version: "v7", Arm: "v7", Prediction: labels.OfProbabilities(1, []float64{0.1, 0.9})}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
