package score_test

import (
	"math"
	"testing"

	"sluice/telemetry/labels/score"
)

// congruential is Knuth's generator: the data below was made anew in Python and given to scikit-learn 1.9.1.
type congruential uint64

func (c *congruential) next() float64 {
	*c = *c*6364136223846793005 + 1442695040888963407
	return float64(*c>>11) / (1 << 53)
}

// predictions draws a class and probabilities that know a little of it.
func predictions(c *congruential, classes int) (p []float64, best, truth int) {
	u := c.next()
	truth = min(int(u*u*float64(classes)), classes-1)
	p = make([]float64, classes)
	for k := range p {
		p[k] = c.next()
	}
	p[truth] += c.next()
	var sum float64
	for _, v := range p {
		sum += v
	}
	for k := range p {
		p[k] /= sum
		if p[k] > p[best] {
			best = k
		}
	}
	return p, best, truth
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s = %.9f, want %.9f ± %g", what, got, want, tolerance)
	}
}

// accuracy_score, f1_score (macro, and of class 1), log_loss, brier_score_loss (of more than two classes: numpy, by
// its definition) and roc_auc_score (ovr, macro). The calibration error in 15 cells is NumPy's, by its definition.
func TestClassesAgreeWithScikitLearn(t *testing.T) {
	for _, tt := range []struct {
		classes, n                                    int
		accuracy, macro, f1, logLoss, brier, auc, ece float64
	}{
		{2, 1000, 0.829, 0.8003173902533867, 0.7246376811594203, 0.4591441091173989, 0.14607214742888316, 0.8936729605276387, 0.11831931708513317},
		{3, 1000, 0.728, 0.7034376649544923, 0.6691312384473198, 0.7547980661387514, 0.44172240962319426, 0.880388254271113, 0.18336838618319884},
		{7, 2000, 0.621, 0.5829125608509441, 0.6066666666666667, 1.492173274843397, 0.6994634030054274, 0.8417000189561865, 0.3396765364123261},
	} {
		c := score.NewClasses(tt.classes)
		seed := congruential(5)
		for range tt.n {
			p, best, truth := predictions(&seed, tt.classes)
			c.Add(best, truth)
			c.AddProbabilities(p, truth)
		}
		near(t, "accuracy", c.Accuracy(), tt.accuracy, 1e-12)
		near(t, "macro F1", c.MacroF1(), tt.macro, 1e-12)
		near(t, "F1 of class 1", c.F1(1), tt.f1, 1e-12)
		near(t, "log-loss", c.LogLoss.Average(), tt.logLoss, 1e-9)
		near(t, "Brier", c.Brier.Average(), tt.brier, 1e-9)
		near(t, "calibration error", c.Calibration.Error(), tt.ece, 1e-9)
		auc, bound := c.AUC()
		near(t, "AUC", auc, tt.auc, bound)
		if bound > 0.02 {
			t.Errorf("%d classes: AUC may be off by %v, want at most 0.02", tt.classes, bound)
		}
	}
}

// numpy and scikit-learn: root_mean_squared_error, mean_absolute_error, mean of the difference.
func TestNumbersAgreeWithScikitLearn(t *testing.T) {
	var n score.Numbers
	seed := congruential(9)
	for range 1000 {
		truth := 100 * seed.next()
		n.Add(truth+10*(seed.next()-0.4), truth)
	}
	near(t, "RMSE", n.RMSE(), 3.0533567579947882, 1e-9)
	near(t, "MAE", n.MAE(), 2.576591618367611, 1e-9)
	near(t, "bias", n.Bias(), 0.8225166475548615, 1e-9)
}

// The first is the paper's own example, which gives 0.032; both from the formula in Python.
func TestAUCErrorIsHanleyAndMcNeils(t *testing.T) {
	near(t, "standard error", score.AUCError(0.893, 51, 58), 0.03251158176764658, 1e-12)
	near(t, "standard error", score.AUCError(0.75, 20, 1000), 0.06370902044227558, 1e-12)
}

// moments makes those of n numbers with this mean and variance.
func moments(n uint64, mean, variance float64) score.Moments {
	return score.Moments{N: n, Mean: mean, Squares: variance * float64(n-1)}
}

// Half widths from the formula √(N(s₁²/n₁+s₀²/n₀))·√((N+η)/N²·ln((N+η)/(ηα²))), written out in Python.
func TestDifferenceHasTheWidthOfItsFormula(t *testing.T) {
	d, i := score.Difference(moments(5000, 0.1, 0.09), moments(500, 0.2, 0.16), 0, 0.05)
	near(t, "difference", d, 0.1, 1e-12)
	near(t, "low", i.Low, 0.1-0.05677635646037844, 1e-9)
	near(t, "high", i.High, 0.1+0.05677635646037844, 1e-9)
	_, i = score.Difference(moments(1000, 0, 1), moments(1000, 0, 1), 0, 0.05)
	near(t, "high", i.High, 0.13573867256799613, 1e-9)
}

// A model that always gives the same probability ranks nothing; one that is always right ranks perfectly.
func TestAUCAtItsEdges(t *testing.T) {
	var same, right score.Ranks
	for i := range 100 {
		same.Add(0.3, i%2 == 0)
		right.Add(float64(i%2), i%2 == 1)
	}
	if v, bound := same.AUC(); v != 0.5 || bound != 0.5 {
		t.Errorf("AUC of equal probabilities = %v ± %v, want 0.5 ± 0.5", v, bound)
	}
	if v, bound := right.AUC(); v != 1 || bound != 0 {
		t.Errorf("AUC of perfect probabilities = %v ± %v, want 1 ± 0", v, bound)
	}
}

// By hand, of three classes: the first ranks perfectly (1), the second not at all (1/2), the third has 2.5 of 3 pairs right.
// Their mean is 7/9; all pairs of all classes together would be 26 of 32.
func TestAUCOfSeveralClassesIsTheMeanOfEachAgainstTheRest(t *testing.T) {
	c := score.NewClasses(3)
	c.AddProbabilities([]float64{0.8, 0.1, 0.1}, 0)
	c.AddProbabilities([]float64{0.8, 0.1, 0.1}, 0)
	c.AddProbabilities([]float64{0.1, 0.1, 0.8}, 1)
	c.AddProbabilities([]float64{0.1, 0.1, 0.8}, 2)
	auc, _ := c.AUC()
	near(t, "AUC", auc, 7./9, 1e-12)
}

func TestNothingCountedIsNaN(t *testing.T) {
	c := score.NewClasses(3)
	auc, bound := c.AUC()
	var n score.Numbers
	for what, v := range map[string]float64{
		"accuracy": c.Accuracy(), "macro F1": c.MacroF1(), "F1": c.F1(0), "log-loss": c.LogLoss.Average(), "AUC": auc, "bound": bound,
		"calibration error": c.Calibration.Error(), "RMSE": n.RMSE(), "MAE": n.MAE(), "bias": n.Bias(), "variance": n.Error.Variance(),
	} {
		if !math.IsNaN(v) {
			t.Errorf("%s of nothing = %v, want NaN", what, v)
		}
	}
	if _, i := score.Difference(moments(199, 0, 1), moments(1000, 0, 1), 1, 0.05); i != score.Unknown {
		t.Errorf("interval from 199 observations = %v, want nothing to be known", i)
	}
}

func TestWrongCertaintyCostsNoMoreThanTheClip(t *testing.T) {
	c := score.NewClasses(2)
	c.AddProbabilities([]float64{1, 0}, 1)
	near(t, "log-loss", c.LogLoss.Average(), 16.11809565095832, 1e-9) // ln 10^7
}
