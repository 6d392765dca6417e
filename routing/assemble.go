package routing

import (
	"fmt"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// assemble builds the routes of new documents, which replace those of the same
// model in a table. A document that is bad, or that lists a service of another
// route, is refused; the reasons are returned by model.
func assemble(docs []*routingv1.Route, current *Table) (built map[string]*Route, refused map[string]error, err error) {
	problems, err := check(&routingv1.Document{Routes: docs})
	if err != nil {
		return nil, nil, err
	}
	perRoute := make(map[int][]problem)
	for _, p := range problems {
		perRoute[p.at[1].index] = append(perRoute[p.at[1].index], p)
	}
	built, refused = make(map[string]*Route, len(docs)), make(map[string]error)
	for i, doc := range docs {
		if bad := perRoute[i]; bad != nil {
			refused[doc.GetModel()] = join(withoutIndex(bad), nil)
			continue
		}
		built[doc.GetModel()] = newRoute(doc)
	}
	for model, r := range built {
		for _, s := range r.Services {
			owner := current.byService[s]
			if owner == nil || built[owner.Model] != nil || owner.Model == model {
				continue
			}
			refused[model] = &FieldError{
				Field: path{}.field("services").String(),
				Got:   quote(s),
				Want:  fmt.Sprintf("a service that is listed once: it belongs to the route of model %s already", quote(owner.Model)),
			}
		}
	}
	for model := range refused {
		delete(built, model)
	}
	return built, refused, nil
}

// withoutIndex makes problems of one route of many read as those of a route.
func withoutIndex(problems []problem) []problem {
	for i := range problems {
		problems[i].at = problems[i].at[2:]
	}
	return problems
}
