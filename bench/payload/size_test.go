package payload

import "testing"

func TestSizesReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]int{"64": 64, "4KiB": 4096, "64KiB": 65536, "1MiB": 1 << 20, "64MiB": 64 << 20, "4097": 4097} {
		var s, again Size
		if err := s.Set(text); err != nil || int(s) != want {
			t.Errorf("Set(%q) = %d, %v, want %d", text, s, err, want)
		}
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("Set(%q) = %d, %v, want %d again", s.String(), again, err, want)
		}
	}
	for _, text := range []string{"", "63", "4KB", "65MiB", "-1", "99999999999999999KiB", "4 KiB x"} {
		if err := new(Size).Set(text); err == nil {
			t.Errorf("Set(%q) succeeded", text)
		}
	}
}
