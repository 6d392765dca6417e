package routing

import (
	"fmt"
	"slices"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Labels says what is known of a route's predictions, and what is done with labels.
type Labels struct {
	// Predicts is class, number, or empty if answers are not looked into.
	Predicts string
	// Output is the tensor that has the prediction; empty means the first.
	Output string
	// Classes are the names of the classes, none unless Predicts is class.
	Classes []string
	// Tolerance is by how much a number may be off before it is an error.
	Tolerance float64
	// GoodFrom is the smallest reward that is no error.
	GoodFrom float64
	// MaxAge is how old a prediction may be when its label comes.
	MaxAge time.Duration
	// Window is the time whose labels are counted together.
	Window time.Duration
	// Detector is esr, adwin or page_hinkley.
	Detector string
	// ExpectedRun is the mean number of labels between two false alarms.
	ExpectedRun int
	// ReferenceError is the share of errors that is usual; 0 if it is learnt from the first Learn labels.
	ReferenceError float64
	Learn          int
}

// What holds where a document says nothing.
const (
	labelGoodFrom    = 0.5
	labelMaxAge      = 7 * 24 * time.Hour
	labelWindow      = 24 * time.Hour
	labelExpectedRun = 100_000
	labelLearn       = 1000
)

// newLabels completes the settings of a document.
func newLabels(doc *routingv1.Labels) *Labels {
	if doc == nil {
		return nil
	}
	l := &Labels{
		Predicts: doc.GetPredicts(), Output: doc.GetOutput(), Classes: slices.Clone(doc.GetClasses()), Tolerance: doc.GetTolerance(),
		GoodFrom: labelGoodFrom, MaxAge: labelMaxAge, Window: labelWindow, Detector: "esr", ExpectedRun: labelExpectedRun,
		ReferenceError: doc.GetReferenceError(), Learn: labelLearn,
	}
	if doc.GoodFrom != nil {
		l.GoodFrom = doc.GetGoodFrom()
	}
	if doc.GetMaxAge() != nil {
		l.MaxAge = doc.GetMaxAge().AsDuration()
	}
	if doc.GetWindow() != nil {
		l.Window = doc.GetWindow().AsDuration()
	}
	if doc.GetDetector() != "" {
		l.Detector = doc.GetDetector()
	}
	if doc.ExpectedRun != nil {
		l.ExpectedRun = int(doc.GetExpectedRun())
	}
	if doc.Learn != nil {
		l.Learn = int(doc.GetLearn())
	}
	return l
}

// labels checks what no single field shows.
func (r *rules) labels(at path, d *routingv1.Labels) {
	if d == nil {
		return
	}
	classes := len(d.GetClasses()) > 0
	switch {
	case d.GetPredicts() == "class" && !classes:
		r.report(at.field("classes"), "none", "the names of 2 to 32 classes, because predicts is class")
	case d.GetPredicts() != "class" && classes:
		r.report(at.field("classes"), fmt.Sprintf("%d names", len(d.GetClasses())), "none unless predicts is class")
	}
	if d.GetPredicts() == "" && d.GetOutput() != "" {
		r.report(at.field("output"), fmt.Sprintf("%q", d.GetOutput()), "none unless predicts is class or number")
	}
	if d.GetPredicts() != "number" && d.GetTolerance() != 0 {
		r.report(at.field("tolerance"), fmt.Sprint(d.GetTolerance()), "none unless predicts is number")
	}
	if d.GetDetector() != "" && d.GetDetector() != "esr" {
		for _, f := range []struct {
			name string
			set  bool
		}{{"expected_run", d.ExpectedRun != nil}, {"reference_error", d.ReferenceError != nil}, {"learn", d.Learn != nil}} {
			if f.set {
				r.report(at.field(f.name), "a number", "none: detector %s does not use it", d.GetDetector())
			}
		}
	}
	if d.ReferenceError != nil && d.Learn != nil {
		r.report(at.field("learn"), fmt.Sprint(d.GetLearn()), "none: reference_error says what would be learnt")
	}
}
