package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/telemetry/incident"
)

func newIncidentsCommand() *cobra.Command {
	var o clientOptions
	var output format
	var open bool
	var limit uint32
	cmd := &cobra.Command{
		Use:   "incidents [MODEL]",
		Short: "Show when models were in trouble, and what it took to notice and to mend",
		Long: `Show when models were in trouble, the latest first, and for each model what it took to notice
and to mend over the last 30 days.

An incident begins when a version's breaker opens, when an error budget burns so fast that it
pages, or when somebody rolls back, and is over when nothing has been wrong for a minute.
Gateways that share a store share their incidents.

An outage lasts until it is mitigated, that is, until callers were helped for good: a breaker cut
the version off and another one answers, it lost its weight, or somebody rolled back. Whether that
helps is for the calls to show: while 1 of 100 or more fail all the same, nothing is mitigated.

Times of models are means and medians. MTTD is from the first bad call to detection, MTTR from it to
recovery; between lie the times from detection to mitigation and from there to recovery (to heal).
Rollbacks while nothing was wrong are counted apart and have no part in the times.`,
		Example: `  sluice incidents
  sluice incidents fraud --open
  sluice postmortem 20260504-120004`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask(cmd.Context(), &o, func(ctx context.Context, c *client) (*adminv1.ListIncidentsResponse, error) {
				return c.ListIncidents(ctx, &adminv1.ListIncidentsRequest{Model: modelOf(args), Open: open, Limit: limit})
			})
			if err != nil {
				return err
			}
			return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) { showIncidents(out, resp, time.Now()) })
		},
	}
	o.register(cmd)
	output.register(cmd)
	cmd.Flags().BoolVar(&open, "open", false, "only those that are not over")
	cmd.Flags().Uint32Var(&limit, "limit", 20, "the most `incidents` to show, up to 1000")
	return cmd
}

func showIncidents(out io.Writer, resp *adminv1.ListIncidentsResponse, now time.Time) {
	if len(resp.GetIncidents()) == 0 {
		fmt.Fprintln(out, "no incidents")
	} else {
		t := newTable("INCIDENT", "MODEL", "ONSET", ">DETECTED", ">MITIGATED", ">RECOVERED", "BY", ">CALLS", ">FAILED", ">LATE", ">FELL BACK")
		for _, in := range resp.GetIncidents() {
			var sum adminv1.Effect
			for _, g := range in.GetGateways() {
				sum.Calls += g.GetEffect().GetCalls()
				sum.Failed += g.GetEffect().GetFailed()
				sum.FellBack += g.GetEffect().GetFellBack()
				sum.Late += g.GetEffect().GetLate()
			}
			onset := in.GetOnset().AsTime()
			mitigated, recovered := "-", "open, "+short(now.Sub(onset))
			if m := in.GetMitigated(); m != nil {
				mitigated = "+" + short(m.AsTime().Sub(onset))
			}
			if r := in.GetRecovered(); r != nil {
				recovered = "+" + short(r.AsTime().Sub(onset))
			}
			t.add(in.GetId(), in.GetModel(), moment(in.GetOnset()), "+"+short(in.GetDetected().AsTime().Sub(onset)), mitigated, recovered,
				visible(in.GetTrigger(), 20), fmt.Sprint(sum.GetCalls()), fmt.Sprint(sum.GetFailed()), fmt.Sprint(sum.GetLate()), fmt.Sprint(sum.GetFellBack()))
		}
		t.write(out)
	}
	if len(resp.GetReliability()) == 0 {
		return
	}
	fmt.Fprintln(out)
	t := newTable("MODEL", ">INCIDENTS", ">OPEN", ">ROLLBACKS", ">UPTIME 30d", ">MTTD", ">MEDIAN", ">TO MITIGATE", ">MEDIAN", ">TO HEAL", ">MEDIAN", ">MTTR", ">MEDIAN")
	for _, r := range resp.GetReliability() {
		row := []string{
			r.GetModel(), fmt.Sprint(r.GetIncidents()), fmt.Sprint(r.GetOpen()), fmt.Sprint(r.GetRollbacks()), fmt.Sprintf("%.3f %%", 100*r.GetUptime()),
		}
		for _, d := range []*durationpb.Duration{
			r.GetMeanTimeToDetect(), r.GetMedianTimeToDetect(), r.GetMeanTimeToMitigate(), r.GetMedianTimeToMitigate(),
			r.GetMeanTimeToHeal(), r.GetMedianTimeToHeal(), r.GetMeanTimeToRecover(), r.GetMedianTimeToRecover(),
		} {
			if d == nil {
				row = append(row, "-") // there was none
			} else {
				row = append(row, short(d.AsDuration()))
			}
		}
		t.add(row...)
	}
	t.write(out)
	for _, r := range resp.GetReliability() {
		// What is left of 30 days after a moment's travel is 30 days.
		if since := r.GetSince(); now.Sub(since.AsTime()) < incident.Horizon-time.Minute {
			fmt.Fprintf(out, "%s: since %s, incidents of before are no longer kept\n", r.GetModel(), moment(since))
		}
	}
}

// short says a duration in two units at most.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	hours := d.Round(time.Minute)
	return fmt.Sprintf("%dh%02dm", int(hours.Hours()), int(hours.Minutes())%60)
}
