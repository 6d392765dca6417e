package labels

import (
	"math"
	"math/bits"
	"time"

	labelsv1 "sluice/proto/sluice/labels/v1"
	"sluice/telemetry/labels/score"
)

// delayCells is how many cells delays are counted in: each is twice as wide as the one before, the last one is open
// and begins after 97 days.
const delayCells = 24

// window has what was counted in a stretch of time. It is not safe for concurrent use.
type window struct {
	labels, errors uint64
	classes        *score.Classes // nil unless classes are predicted
	numbers        score.Numbers
	reward         score.Moments
	arm            score.Moments // losses of calls that the split has sent to the version
	delays         [delayCells]uint64
}

func newWindow(s *Settings) *window {
	w := new(window)
	if s.Predicts == Class {
		w.classes = score.NewClasses(len(s.Classes))
	}
	return w
}

func (w *window) delay(d time.Duration) {
	w.delays[min(bits.Len64(uint64(max(0, d)/time.Second)), delayCells-1)]++
}

// medianDelay is about how long after the prediction half of the labels had come: within a cell they are taken to be
// spread evenly.
func (w *window) medianDelay() time.Duration {
	var total uint64
	for _, n := range w.delays {
		total += n
	}
	if total == 0 {
		return 0
	}
	half, below := float64(total)/2, 0.0
	for i, n := range w.delays {
		if c := float64(n); below+c >= half {
			low, high := 0.0, 1.0
			if i > 0 {
				low, high = math.Exp2(float64(i-1)), math.Exp2(float64(i))
			}
			return time.Duration((low + (high-low)*(half-below)/c) * float64(time.Second))
		}
		below += float64(n)
	}
	return 0
}

func (w *window) merge(o *window) {
	w.labels += o.labels
	w.errors += o.errors
	if w.classes != nil && o.classes != nil {
		w.classes.Merge(o.classes)
	}
	w.numbers.Merge(o.numbers)
	w.reward.Merge(o.reward)
	w.arm.Merge(o.arm)
	for i, n := range o.delays {
		w.delays[i] += n
	}
}

func (w *window) encode(number int64) *labelsv1.Window {
	p := &labelsv1.Window{
		Number: number, Labels: w.labels, Errors: w.errors, Error: encodeMoments(w.numbers.Error), Distance: encodeMoments(w.numbers.Distance),
		Reward: encodeMoments(w.reward), Arm: encodeMoments(w.arm), Delays: append([]uint64(nil), w.delays[:]...),
	}
	if c := w.classes; c != nil {
		p.Confusion = append([]uint64(nil), c.Confusion...)
		p.LogLoss, p.Brier = encodeMoments(c.LogLoss), encodeMoments(c.Brier)
		for _, x := range c.Calibration {
			p.Calibration = append(p.Calibration, &labelsv1.Calibration{N: x.N, Right: x.Right, Sum: x.Sum})
		}
		for i := range c.Ranks {
			p.Ranks = append(append(p.Ranks, c.Ranks[i].Of[:]...), c.Ranks[i].Others[:]...)
		}
	}
	return p
}

// decodeWindow reads what another gateway has stored by the same settings; false if it is not that.
func decodeWindow(s *Settings, p *labelsv1.Window) (*window, bool) {
	w := newWindow(s)
	w.labels, w.errors = p.GetLabels(), p.GetErrors()
	sums := map[*score.Moments]*labelsv1.Moments{
		&w.numbers.Error: p.GetError(), &w.numbers.Distance: p.GetDistance(), &w.reward: p.GetReward(), &w.arm: p.GetArm(),
	}
	if c := w.classes; c != nil {
		if len(p.GetConfusion()) != len(c.Confusion) || len(p.GetRanks()) != 2*score.Cells*len(c.Ranks) {
			return nil, false
		}
		copy(c.Confusion, p.GetConfusion())
		ranks := p.GetRanks()
		for i := range c.Ranks {
			ranks = ranks[copy(c.Ranks[i].Of[:], ranks):]
			ranks = ranks[copy(c.Ranks[i].Others[:], ranks):]
		}
		for i, x := range p.GetCalibration() {
			if i >= len(c.Calibration) || !finite(x.GetSum()) {
				return nil, false
			}
			cell := &c.Calibration[i]
			cell.N, cell.Right, cell.Sum = x.GetN(), x.GetRight(), x.GetSum()
		}
		sums[&c.LogLoss], sums[&c.Brier] = p.GetLogLoss(), p.GetBrier()
	}
	for to, from := range sums {
		*to = score.Moments{N: from.GetN(), Mean: from.GetMean(), Squares: from.GetSquares()}
		if !finite(to.Mean) || !finite(to.Squares) {
			return nil, false
		}
	}
	copy(w.delays[:], p.GetDelays())
	return w, w.errors <= w.labels
}

func encodeMoments(m score.Moments) *labelsv1.Moments {
	if m.N == 0 {
		return nil
	}
	return &labelsv1.Moments{N: m.N, Mean: m.Mean, Squares: m.Squares}
}

func finite(v float64) bool { return v-v == 0 }
