package drift

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	driftv1 "sluice/proto/sluice/drift/v1"
)

// Report is what is known of one version.
type Report struct {
	Key
	Settings Settings
	// Reference says what is compared with, without its features; nil if there is none.
	Reference *driftv1.Reference
	// Learnt of ToLearn samples have been gathered for what has no reference yet.
	Learnt, ToLearn int
	// Sampled calls were looked at by this gateway, Unreadable ones were not understood.
	Sampled, Unreadable uint64
	// Window is the last whole one, with samples of all gateways; Next is when the one under way ends, with the
	// samples that are added up already.
	Window Span
	Next   Span
	// Findings are those of the last whole window, the most conspicuous first.
	Findings []Finding
	// Alarms counts all that this gateway has raised since it runs.
	Alarms uint64
}

// Reports returns what is known of the versions of a model, or of all models if it is empty, in the order of their
// names.
func (m *Monitor) Reports(model string) []Report {
	var all []Report
	for _, v := range m.all() {
		if model == "" || v.key.Model == model {
			r := v.report()
			r.Alarms = m.alarms.count(v.key)
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b Report) int {
		return cmp.Or(strings.Compare(a.Model, b.Model), strings.Compare(a.Version, b.Version))
	})
	return all
}

// Alarms returns the last alarms of a model's versions, the newest first.
func (m *Monitor) Alarms(model string) []Alarm { return m.alarms.of(model) }

// Dropped is how many samples were not looked at because too many waited; it only grows.
func (m *Monitor) Dropped() uint64 { return m.dropped.Load() }

// Payloads are how many samples were written down and how many lost; false if none are to be written.
func (m *Monitor) Payloads() (written, dropped uint64, on bool) {
	if m.cfg.Payloads == nil {
		return 0, 0, false
	}
	written, dropped = m.cfg.Payloads.Counts()
	return written, dropped, true
}

func (v *Version) report() Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := Report{
		Key: v.key, Settings: v.settings, Sampled: v.sampled.Load(), Unreadable: v.unreadable.Load(),
		Window: v.last, Learnt: v.learner.rows, ToLearn: v.learner.want,
	}
	if v.ref == nil {
		return r
	}
	r.Reference = &driftv1.Reference{
		Model: v.ref.doc.GetModel(), Version: v.ref.doc.GetVersion(),
		Data: v.ref.doc.GetData(), Source: v.ref.doc.GetSource(), Made: v.ref.doc.GetMade(),
	}
	r.Next = v.span(max(v.began, v.current*slots), (v.current+1)*slots, v.window.samples)
	r.Findings = slices.Clone(v.findings)
	for i := range r.Findings {
		f := &r.Findings[i] // in the order of the reference's
		f.Label = v.ref.label(i, v.settings.Columns)
		f.Rates = slices.Clone(f.Rates)
		for j := range f.Rates {
			if at, ok := v.rateAt[rateKey{i, f.Rates[j].Kind}]; ok && at >= (v.current-1)*slots {
				f.Rates[j].Alarm = true
			}
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.State, a.State), cmp.Compare(a.Ranked, b.Ranked), strings.Compare(a.Feature, b.Feature))
	})
	return r
}

// Put stores what a version is compared with from now on, in place of what it was. All gateways follow within
// seconds.
func (m *Monitor) Put(ctx context.Context, doc *driftv1.Reference) error {
	if err := Check(doc); err != nil {
		return err
	}
	data, err := encode(doc)
	if err != nil {
		return err
	}
	return m.cfg.Shelf(referenceShelf).Put(ctx, Key{doc.GetModel(), doc.GetVersion()}.shelfKey(), data)
}

// Remove forgets what a version is compared with. It reports false if there was nothing.
func (m *Monitor) Remove(ctx context.Context, key Key) (bool, error) {
	shelf := m.cfg.Shelf(referenceShelf)
	data, err := shelf.Get(ctx, key.shelfKey())
	if err != nil || data == nil {
		return false, err
	}
	return true, shelf.Put(ctx, key.shelfKey(), nil)
}

// FromTraffic makes a reference for a version of what another one was asked and has answered in its last whole
// window. It is not calibrated, but for embeddings: what chance does is taken over from the other's reference.
func (m *Monitor) FromTraffic(key Key, from string) (*driftv1.Reference, error) {
	source := m.version(Key{key.Model, from})
	if source == nil {
		return nil, fmt.Errorf("version %q of %q is not watched: its route needs a drift setting", from, key.Model)
	}
	source.mu.Lock()
	defer source.mu.Unlock()
	if source.ref == nil || source.done.samples < leastForPSI {
		return nil, fmt.Errorf("version %q of %q has no whole window of at least %d samples yet", from, key.Model, leastForPSI)
	}
	doc := &driftv1.Reference{
		Model: key.Model, Version: key.Version, Data: source.ref.doc.GetData(), Made: timestamppb.New(time.Now()),
		Source: fmt.Sprintf("traffic of version %s", from),
	}
	for i, f := range source.ref.features {
		c := &source.done.features[i]
		cells, n := c.wide()
		if n == 0 {
			continue // there is nothing to compare with
		}
		missing, inf := uint64(c.nan), uint64(c.inf)
		made := &driftv1.Feature{
			Name: f.doc.GetName(), Rows: n + missing + inf, Missing: missing, Infinite: inf, Cells: f.doc.GetCells(), Counts: cells,
			Absent: uint64(c.absent),
		}
		if f.embedding != nil {
			made.Cells = &driftv1.Feature_Embedding{Embedding: &driftv1.Embedding{
				Width: f.embedding.GetWidth(), Bandwidth: f.embedding.GetBandwidth(), Sums: slices.Clone(c.rows.Sums), Square: c.rows.Square,
			}}
			made.Mmd = f.doc.GetMmd()
		}
		doc.Features = append(doc.Features, made)
	}
	return doc, Check(doc)
}
