package filestore_test

import (
	"fmt"
	"strings"
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/filestore"
	"sluice/routing/storetest"
)

// BenchmarkChange changes one route among 10,000, on disk, without a history and with
// 10 MB of one.
func BenchmarkChange(b *testing.B) {
	for _, past := range []int{0, 10 << 20} {
		b.Run(fmt.Sprintf("history=%dMB", past>>20), func(b *testing.B) {
			s, err := filestore.Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			many := new(routing.Update)
			for i := range 10_000 {
				many.Set = append(many.Set, storetest.Route(fmt.Sprintf("model-%05d", i), "v1", "v2"))
			}
			storetest.Update(b, s, many)
			big := storetest.Route("big", "v1")
			for i := range 900 { // some 0.13 MB, before and after each change
				big.Versions[0].Endpoints = append(big.Versions[0].Endpoints, fmt.Sprintf("%s.example.org:%d", strings.Repeat("a", 60)+"."+strings.Repeat("b", 60), 1000+i))
			}
			for bytes := 0; bytes < past; bytes += 280 << 10 {
				big.Versions[0].Provenance = &routingv1.Provenance{Data: fmt.Sprint(bytes)}
				storetest.Set(b, s, big)
			}
			at := storetest.Load(b, s).Revision
			b.ResetTimer()
			for i := range b.N {
				storetest.Update(b, s, &routing.Update{
					Expected: at + uint64(i), Set: []*routingv1.Route{storetest.Route("model-00042", fmt.Sprint("v", i))},
				})
			}
		})
	}
}
