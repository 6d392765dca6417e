package labels_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"sluice/telemetry/labels"
)

// The examples of RFC 4493, section 4: an empty message, one block, two and a half, and four.
func TestMACsAreThoseOfTheStandard(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key := unhex("2b7e151628aed2a6abf7158809cf4f3c")
	message := unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for n, want := range map[int]string{
		0:  "bb1d6929e95937287fa37d129b756746",
		16: "070a16b46b4d4144f79bdd9dd04a287c",
		40: "dfa66747de9ae63030ca32611497c827",
		64: "51f0bebf7e3b9d92fc49741779363cfe",
	} {
		if got := labels.MAC(key, message[:n]); !bytes.Equal(got, unhex(want)) {
			t.Errorf("MAC of %d bytes = %x, want %s", n, got, want)
		}
	}
}
