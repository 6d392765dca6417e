package routing_test

import (
	"fmt"

	"sluice/routing"
)

// A document becomes a table; the table chooses a version for each call.
func Example() {
	doc, err := routing.Parse("routes.yaml", []byte(`
routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: ["10.0.0.7:8001"]}
      - {name: v8, endpoints: ["10.0.0.8:8001"]}
      - {name: v9, endpoints: ["10.0.0.9:8001"]}
    weights: {v7: 95, v8: 5} # v9 is dark
    sticky: {metadata: x-user-id}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	table, err := routing.Build(doc, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	router := routing.NewRouter()
	router.Publish(table)

	route, _ := router.Current().Route("fraud")
	for _, call := range []struct {
		force, key string
		random     uint64
	}{
		{random: 0},
		{random: 1<<64 - 1},
		{key: "alice"},
		{force: "v9"},
		{force: "v10"},
	} {
		choice, err := route.Choose(call.force, call.key, call.random)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(choice.Version.Name, choice.Reason)
	}
	// Output:
	// v7 weighted
	// v8 weighted
	// v7 sticky
	// v9 forced
	// model "fraud": version "v10": unknown version
}

func ExampleParse() {
	_, err := routing.Parse("routes.yaml", []byte(`
routes:
  - model: fraud
    versions: [{name: v7, endpoints: ["10.0.0.7"]}]
    weights: {v7: 95, v9: 5}
`))
	fmt.Println(err)
	// Output:
	// routes.yaml:4: routes[0].versions[0].endpoints[0]: got "10.0.0.7", want host:port, [v6]:port or dns:///host:port: the port is missing
	// routes.yaml:5: routes[0].weights.v9: got "v9", want one of the route's versions (v7)
}
