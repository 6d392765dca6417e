// Package slo computes error budgets and burn rates of service level objectives.
//
// An objective is the share of events that have to be good. What may be bad is its
// error budget; the burn rate is how many times as fast as allowed it is being spent:
// at rate 1 the budget lasts exactly as long as the objective's period. A burn rate over
// one window says either something stale or something nervous, so that an alert asks two:
// a long window for weight and a short one for being true still (Google, "The Site
// Reliability Workbook", chapter 5, alternative 6).
//
// A [Series] remembers 30 days of one objective in 1,440 pairs of numbers. It is fed with
// cumulative counts, so that counting costs a call one atomic addition elsewhere, and
// reading is nobody's business but the reader's.
package slo
