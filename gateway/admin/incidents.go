package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/telemetry/incident"
)

const (
	// maxIncidents and defaultIncidents bound a list.
	maxIncidents     = 1000
	defaultIncidents = 50
	// maxIncidentChanges bounds the changes around an incident, lookBack how long before its onset
	// they begin: what was done just before is often why.
	maxIncidentChanges = 100
	lookBack           = time.Hour
	// maxActions and maxActionText bound what people add to an incident.
	maxActions    = 50
	maxActionText = 500
)

var errNoIncidents = errors.New("this gateway keeps no incidents: its telemetry is off")

// book returns the incidents.
func (s *Service) book() (*incident.Book, error) {
	if s.cfg.Incidents == nil {
		return nil, refuse(connect.CodeUnimplemented, ReasonNoIncidents, errNoIncidents, nil)
	}
	return s.cfg.Incidents.Book(), nil
}

// ListIncidents returns incidents, the latest first, and what they say together.
func (s *Service) ListIncidents(ctx context.Context, req *adminv1.ListIncidentsRequest) (*adminv1.ListIncidentsResponse, error) {
	book, err := s.book()
	if err != nil {
		return nil, err
	}
	all, err := book.All(ctx)
	if err != nil {
		return nil, failure(err, func(field string) string { return field })
	}
	limit := defaultIncidents
	if n := req.GetLimit(); n > 0 {
		limit = int(min(n, maxIncidents))
	}
	resp := new(adminv1.ListIncidentsResponse)
	var selected []*adminv1.Incident
	for _, in := range all {
		if req.GetModel() != "" && in.GetModel() != req.GetModel() {
			continue
		}
		selected = append(selected, in)
		if req.GetOpen() && in.GetRecovered() != nil || len(resp.Incidents) == limit {
			continue
		}
		resp.Incidents = append(resp.Incidents, summary(in))
	}
	forgotten, err := book.Forgotten(ctx)
	if err != nil {
		return nil, failure(err, func(field string) string { return field })
	}
	now := time.Now()
	resp.Reliability = incident.Reliability(selected, forgotten, now.Add(-incident.Horizon), now)
	return resp, nil
}

// summary leaves out what a list has no room for.
func summary(in *adminv1.Incident) *adminv1.Incident {
	return &adminv1.Incident{
		Id: in.GetId(), Model: in.GetModel(), Onset: in.GetOnset(), Detected: in.GetDetected(),
		Mitigated: in.GetMitigated(), Mitigation: in.GetMitigation(), Recovered: in.GetRecovered(),
		Trigger: in.GetTrigger(), Gateways: in.GetGateways(), DroppedEvents: in.GetDroppedEvents(),
	}
}

// GetIncident returns one incident and what was changed around it.
func (s *Service) GetIncident(ctx context.Context, req *adminv1.GetIncidentRequest) (*adminv1.GetIncidentResponse, error) {
	in, err := s.incident(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	changes, err := s.changesAround(ctx, in)
	if err != nil {
		return nil, failure(err, func(field string) string { return field })
	}
	return &adminv1.GetIncidentResponse{Incident: in, Changes: changes}, nil
}

// incident finds one.
func (s *Service) incident(ctx context.Context, id string) (*adminv1.Incident, error) {
	book, err := s.book()
	if err != nil {
		return nil, err
	}
	in, err := book.Find(ctx, id)
	if err != nil {
		return nil, incidentFailure(err)
	}
	return in, nil
}

func incidentFailure(err error) error {
	if errors.Is(err, incident.ErrUnknown) {
		return refuse(connect.CodeNotFound, ReasonIncidentNotFound, err, nil)
	}
	return failure(err, func(field string) string { return field })
}

// changesAround returns the changes of the model's route in the time of an incident and shortly before.
func (s *Service) changesAround(ctx context.Context, in *adminv1.Incident) ([]*routingv1.Change, error) {
	from := in.GetOnset().AsTime().Add(-lookBack)
	history, err := s.history(ctx, routing.HistoryQuery{Model: in.GetModel(), Limit: maxRollback, Bytes: maxHistoryBytes, Documents: 1})
	if err != nil {
		return nil, err
	}
	var found []*routingv1.Change
	for _, c := range history { // the newest first
		at := c.GetTime().AsTime()
		if in.GetRecovered() != nil && at.After(in.GetRecovered().AsTime()) {
			continue
		}
		if at.Before(from) || len(found) == maxIncidentChanges {
			break
		}
		found = append(found, c)
	}
	return found, nil
}

// AnnotateIncident adds what people know.
func (s *Service) AnnotateIncident(ctx context.Context, req *adminv1.AnnotateIncidentRequest) (*adminv1.AnnotateIncidentResponse, error) {
	if err := checkAnnotation(req); err != nil {
		return nil, failure(err, func(field string) string { return field })
	}
	in, err := s.incident(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	in, err = s.cfg.Incidents.Book().Change(ctx, in.GetId(), func(in *adminv1.Incident) error { return annotate(in, req) })
	if err != nil {
		return nil, incidentFailure(err)
	}
	return &adminv1.AnnotateIncidentResponse{Incident: in}, nil
}

func checkAnnotation(req *adminv1.AnnotateIncidentRequest) error {
	var problems []error
	if n := len(req.GetActor()); n == 0 || n > 128 {
		problems = append(problems, &routing.FieldError{Field: "actor", Got: fmt.Sprintf("%d bytes", n), Want: "1 to 128 bytes"})
	}
	if n := len(req.GetAddAction()); n > maxActionText {
		problems = append(problems, &routing.FieldError{Field: "add_action", Got: fmt.Sprintf("%d bytes", n), Want: fmt.Sprintf("at most %d bytes", maxActionText)})
	}
	if req.GetAddAction() == "" && req.GetCompleteAction() == 0 {
		problems = append(problems, &routing.FieldError{Field: "add_action", Got: "nothing", Want: "a text, or a number in complete_action"})
	}
	return errors.Join(problems...)
}

func annotate(in *adminv1.Incident, req *adminv1.AnnotateIncidentRequest) error {
	if n := int(req.GetCompleteAction()); n > 0 {
		if n > len(in.Actions) {
			return &routing.FieldError{Field: "complete_action", Got: fmt.Sprint(n), Want: fmt.Sprintf("the number of one of the %d action items", len(in.Actions))}
		}
		in.Actions[n-1].Done = true
	}
	// Who adds the same again repeats a request whose answer was lost.
	same := func(a *adminv1.ActionItem) bool {
		return a.GetText() == req.GetAddAction() && a.GetActor() == req.GetActor()
	}
	if text := req.GetAddAction(); text != "" && !slices.ContainsFunc(in.Actions, same) {
		if len(in.Actions) == maxActions {
			return &routing.FieldError{Field: "add_action", Got: "one more", Want: fmt.Sprintf("at most %d action items", maxActions)}
		}
		in.Actions = append(in.Actions, &adminv1.ActionItem{Text: text, Actor: req.GetActor()})
	}
	return nil
}
