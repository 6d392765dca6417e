package incident

import (
	"fmt"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

// BeginRollback makes an incident of a rollback that this gateway was asked for, or makes it part of one: somebody had a reason.
// Nil is no rollback, for there was nothing to undo.
func (t *Tracker) BeginRollback(c *routingv1.Change) {
	for _, r := range c.GetRoutes() {
		t.Begin(Trouble{
			Model: r.GetModel(), Name: fmt.Sprintf("rollback by revision %d", c.GetRevision()), Trigger: Rollback,
			At: c.GetTime().AsTime(), Text: rolledBack(c), Actor: c.GetActor(), Revision: c.GetRevision(), Brief: true,
		})
	}
}

// Follow takes a change of the routes that this gateway is about to serve, whoever was asked for it. A rollback ought to help
// callers, of trouble that is known and of trouble that is found later and began before: each gateway has its own.
func (t *Tracker) Follow(c *routingv1.Change) {
	if !c.GetRollback() {
		return
	}
	how, at := rolledBack(c), c.GetTime()
	for _, r := range c.GetRoutes() {
		model := r.GetModel()
		t.tell(func(t *Tracker) {
			if m := t.models[model]; m != nil {
				m.mitigate(how, at.AsTime())
				return
			}
			t.keep(note{model, &adminv1.IncidentEvent{Time: at, Text: how}, true})
		})
	}
}

func rolledBack(c *routingv1.Change) string {
	if c.GetReason() == "" {
		return "rolled back"
	}
	return "rolled back: " + c.GetReason()
}
