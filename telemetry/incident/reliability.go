package incident

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/proto/sluice/admin/v1"
)

// Horizon is the time over which reliability is looked at.
const Horizon = 30 * 24 * time.Hour

// Reliability says, by model, what incidents say together about the time from since to now; of a model of which
// incidents were forgotten, about the time since the latest of those was over, see [Book.Forgotten]. Models that had none
// in that time are not mentioned.
//
// MTTD is the mean of detected - onset; MTTR that of recovered - onset, over those that are
// over. Between them lie the times from detection to mitigation and from there to recovery, of those that
// were mitigated. Means are drawn by single long ones, so that medians stand beside them. Rollbacks while nothing was
// wrong are counted apart. Uptime is
// the share of the time outside of the union of the outages, each from onset to mitigation or, without
// one, to recovery or now.
func Reliability(incidents []*adminv1.Incident, forgotten map[string]time.Time, since, now time.Time) []*adminv1.Reliability {
	byModel := make(map[string][]*adminv1.Incident)
	for _, in := range incidents {
		if end(in, now).After(later(since, forgotten[in.GetModel()])) {
			byModel[in.GetModel()] = append(byModel[in.GetModel()], in)
		}
	}
	var all []*adminv1.Reliability
	for model, of := range byModel {
		since := later(since, forgotten[model])
		r := &adminv1.Reliability{Model: model, Since: stamp(since)}
		var detect, mitigate, heal, recover []time.Duration
		var outages []span
		for _, in := range of {
			if routine(in) {
				r.Rollbacks++
				continue
			}
			r.Incidents++
			onset, detected := in.GetOnset().AsTime(), in.GetDetected().AsTime()
			detect = append(detect, detected.Sub(onset))
			if in.GetRecovered() == nil {
				r.Open++
			} else {
				recover = append(recover, in.GetRecovered().AsTime().Sub(onset))
			}
			if m := in.GetMitigated(); m != nil {
				mitigate = append(mitigate, max(0, m.AsTime().Sub(detected)))
				if in.GetRecovered() != nil {
					heal = append(heal, max(0, in.GetRecovered().AsTime().Sub(m.AsTime())))
				}
			}
			outages = append(outages, span{later(onset, since), helped(in, now)})
		}
		r.MeanTimeToDetect, r.MedianTimeToDetect = mean(detect), median(detect)
		r.MeanTimeToMitigate, r.MedianTimeToMitigate = mean(mitigate), median(mitigate)
		r.MeanTimeToHeal, r.MedianTimeToHeal = mean(heal), median(heal)
		r.MeanTimeToRecover, r.MedianTimeToRecover = mean(recover), median(recover)
		r.Uptime = 1 - float64(union(outages))/float64(now.Sub(since))
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *adminv1.Reliability) int { return cmp.Compare(a.GetModel(), b.GetModel()) })
	return all
}

// routine reports whether nothing is known to have gone wrong but that somebody rolled back.
func routine(in *adminv1.Incident) bool {
	return in.GetTrigger() == Rollback && !in.GetOnset().AsTime().Before(in.GetDetected().AsTime())
}

// end is when an incident was over, now if it is not.
func end(in *adminv1.Incident, now time.Time) time.Time {
	if in.GetRecovered() == nil {
		return now
	}
	return in.GetRecovered().AsTime()
}

// helped is when callers were, at the latest at the end.
func helped(in *adminv1.Incident, now time.Time) time.Time {
	if t := in.GetMitigated(); t != nil && t.AsTime().Before(end(in, now)) {
		return t.AsTime()
	}
	return end(in, now)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func mean(ds []time.Duration) *durationpb.Duration {
	if len(ds) == 0 {
		return nil
	}
	var sum time.Duration
	for _, d := range ds {
		sum += d
	}
	return durationpb.New(sum / time.Duration(len(ds)))
}

// median is the middle one, or the mean of the two in the middle.
func median(ds []time.Duration) *durationpb.Duration {
	if len(ds) == 0 {
		return nil
	}
	slices.Sort(ds)
	n := len(ds)
	return durationpb.New((ds[(n-1)/2] + ds[n/2]) / 2)
}

// span is a time from one moment to another.
type span struct{ from, to time.Time }

// union is the time that lies in at least one of the spans.
func union(spans []span) (sum time.Duration) {
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var until time.Time
	for _, s := range spans {
		from := later(s.from, until)
		if s.to.After(from) {
			sum += s.to.Sub(from)
			until = s.to
		}
	}
	return sum
}
