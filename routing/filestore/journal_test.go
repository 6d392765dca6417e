package filestore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/filestore"
	"sluice/routing/statefile"
	"sluice/routing/storetest"
)

// writeJournal makes a store of some changes and returns its journal after each of them.
func writeJournal(t *testing.T, dir string, changes int) [][]byte {
	t.Helper()
	s := open(t, dir)
	var after [][]byte
	for i := range changes {
		storetest.Update(t, s, &routing.Update{
			Expected: uint64(i), Set: []*routingv1.Route{storetest.Route("m", fmt.Sprint("v", i+1), "a", "b", "c", "d", "e", "f", "g", "h")}, RequestKey: fmt.Sprint("key-", i+1),
		})
		data, err := os.ReadFile(filepath.Join(dir, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		after = append(after, data)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return after
}

// TestLossOfPowerLosesNoChangeThatWasAnswered cuts the last entry off at each of its
// bytes, as well as replacing what is missing by zeros: that change was not answered. What
// was before is there, and the store goes on from it, also after another restart.
func TestLossOfPowerLosesNoChangeThatWasAnswered(t *testing.T) {
	dir := t.TempDir()
	journals := writeJournal(t, dir, 3)
	good, whole := len(journals[1]), journals[2]
	if len(whole)/512 == good/512 {
		t.Fatalf("the last entry, from byte %d to %d, is within one sector: the test shows too little", good, len(whole))
	}
	name := filepath.Join(dir, "journal")
	for n := good; n < len(whole); n++ {
		torn := slices.Clone(whole[:n])
		if sectors := (n + 511) / 512 * 512; n%2 == 1 && sectors < len(whole) { // the file had grown before it was written
			torn = append(slices.Clone(whole[:sectors]), make([]byte, len(whole)-sectors)...)
		}
		if err := os.WriteFile(name, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := filestore.Open(dir)
		if err != nil {
			t.Fatalf("cut off after byte %d of %d: %v", n, len(whole), err)
		}
		if at := storetest.Load(t, s); at.Revision != 2 || at.Routes["m"].GetRoute().GetVersions()[0].GetName() != "v2" {
			t.Fatalf("cut off after byte %d: at revision %d, want 2", n, at.Revision)
		}
		if n%16 == 0 {
			storetest.Set(t, s, storetest.Route("m", "next"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
			if at := storetest.Load(t, s); at.Revision != 3 || at.Routes["m"].GetRoute().GetVersions()[0].GetName() != "next" {
				t.Fatalf("cut off after byte %d, changed and restarted: at %d", n, at.Revision)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedJournalIsDetected: an altered byte is no loss of power, wherever it is, and
// nothing is touched.
func TestDamagedJournalIsDetected(t *testing.T) {
	dir := t.TempDir()
	whole := writeJournal(t, dir, 3)[2]
	name := filepath.Join(dir, "journal")
	for i := 0; i < len(whole); i += 3 {
		damaged := slices.Clone(whole)
		damaged[i] ^= 0x10
		if err := os.WriteFile(name, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := filestore.Open(dir)
		if err == nil {
			_ = s.Close()
		}
		if !errors.Is(err, statefile.ErrDamaged) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "backup") {
			t.Fatalf("altered at byte %d: Open = %v, want the damage, the file and what to do", i, err)
		}
		if now, err := os.ReadFile(name); err != nil || !slices.Equal(now, damaged) {
			t.Fatal("the damaged file was touched")
		}
	}
}

// TestJournalIsFoldedIntoTheState when it has grown, also if the process ends between the
// two files.
func TestJournalIsFoldedIntoTheState(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	big := new(routing.Update)
	const routes = 3500
	for i := range routes {
		r := storetest.Route(fmt.Sprintf("model-%05d", i), "v1")
		r.Versions[0].Provenance = &routingv1.Provenance{Artifact: strings.Repeat("x", 250)}
		big.Set = append(big.Set, r)
	}
	storetest.Update(t, s, big)
	name := filepath.Join(dir, "journal")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	keyed := &routing.Update{Expected: 1, Set: []*routingv1.Route{storetest.Route("m", "v1")}, RequestKey: "key"}
	made := storetest.Update(t, s, keyed)
	after, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) < 1<<20 || len(after) >= len(before) {
		t.Fatalf("the journal had %d bytes and then %d, want it emptied", len(before), len(after))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, before, 0o600); err != nil { // it was not emptied any more
		t.Fatal(err)
	}
	s = open(t, dir)
	if at := storetest.Load(t, s); at.Position != routing.PositionAfter(made) || len(at.Routes) != routes+1 {
		t.Errorf("at %+v with %d entries, want all of revision 2", at.Position, len(at.Routes))
	}
	if again := storetest.Update(t, s, keyed); again.GetId() != made.GetId() {
		t.Errorf("repeated: %v, want revision 2", again)
	}
	storetest.Set(t, s, storetest.Route("m", "v2"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if at := storetest.Load(t, open(t, dir)); at.Revision != 3 {
		t.Errorf("at revision %d after all, want 3", at.Revision)
	}
}
