package main

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/bench/peer"
)

func TestScenariosReadAsTheyAreWritten(t *testing.T) {
	for _, set := range strings.Split(setNames, ", ") {
		scenarios, err := parseScenarios(set)
		if err != nil || len(scenarios) == 0 {
			t.Fatalf("%s: %v", set, err)
		}
		var words []string
		for _, s := range scenarios {
			words = append(words, s.String())
		}
		again, err := parseScenarios(strings.Join(words, ","))
		if err != nil || !slices.Equal(again, scenarios) {
			t.Errorf("%s: %v became %v, %v", set, scenarios, again, err)
		}
	}
	got, err := parseScenarios("4KiB:4x32:tls:stream:varied, quick")
	want := []scenario{{Size: 4096, Connections: 4, Streams: 32, TLS: true, Stream: true, Varied: true}, {Size: 4096, Connections: 4, Streams: 8}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("scenarios = %v, %v, want %v", got, err, want)
	}
}

func TestEveryPeerComesAfterEveryOther(t *testing.T) {
	peers := []peer.Peer{known("a"), known("b"), known("c"), known("d")}
	order := rand.New(rand.NewPCG(1, 0))
	after := make(map[string]int)
	for range 200 {
		last := "nobody"
		for _, p := range shuffled(peers, order) {
			after[last+p.Name()]++
			last = p.Name()
		}
	}
	// 4 that may be first, and 3 that each may follow: with 200 rounds, 50 times.
	if len(after) != 4+4*3 {
		t.Errorf("who came after whom: %v, want every pair", after)
	}
	for pair, n := range after {
		if n < 20 {
			t.Errorf("%s came %d times, want about 50", pair, n)
		}
	}
}

// What a scenario leaves behind, such as the heap of requests of 1 MiB, is not always the same one's burden.
func TestScenariosComeInAnotherOrderEachRound(t *testing.T) {
	all, err := parseScenarios("report")
	if err != nil {
		t.Fatal(err)
	}
	order := rand.New(rand.NewPCG(1, 0))
	before := make(map[scenario]bool) // what came right before that of 1 KiB
	for range 100 {
		round := shuffled(all, order)
		if i := slices.IndexFunc(round, func(s scenario) bool { return s.Size == 1024 }); i > 0 {
			before[round[i-1]] = true
		}
	}
	if len(before) < len(all)/2 {
		t.Errorf("1 KiB came after %d of %d others in 100 rounds, want after most", len(before), len(all))
	}
}

func TestWrongScenariosNameWhatIsAccepted(t *testing.T) {
	for _, text := range []string{"", "4KiB", "4KB:4x8", "2MiB:4x8", "63:4x8", "4KiB:4", "4KiB:4x0", "4KiB:1001x1", "4KiB:4x8x2",
		"4KiB:4x8:tcp", "4KiB:4x8:tls:tls", "99999999999999999KiB:1x1", "standard,nonsense"} {
		_, err := parseScenarios(text)
		if err == nil || !strings.Contains(err.Error(), "want SIZE:CONNECTIONSxSTREAMS[:tls][:stream][:varied] with 64 to 1MiB") {
			t.Errorf("parseScenarios(%q) = %v, want an error that says what is accepted", text, err)
		}
	}
}
