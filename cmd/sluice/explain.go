package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
)

func newExplainCommand() *cobra.Command {
	var o clientOptions
	var output format
	var metadata []string
	req := &adminv1.ExplainRequest{}
	cmd := &cobra.Command{
		Use:   "explain [MODEL] [--metadata KEY=VALUE]...",
		Short: "Say where a call would go, and why",
		Long: `Say where a call would go, and why, with the gateway's own code.

The call is described by the model in its message and by its metadata, such as
sluice-version, sluice-key or the key that the route's sticky setting names.`,
		Example: `  sluice explain fraud
  sluice explain fraud --metadata x-user-id=4711
  sluice explain --service grpc.testing.TestService`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Metadata, err = parseMetadata(metadata); err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			req.Model = modelOf(args)
			if req.GetModel() == "" && req.GetService() == "" && len(metadata) == 0 {
				return &usageError{errors.New("want a model, --metadata or --service: something has to name the model"), cmd.CommandPath()}
			}
			resp, err := ask(cmd.Context(), &o, func(ctx context.Context, c *client) (*adminv1.ExplainResponse, error) {
				return c.Explain(ctx, req)
			})
			if err != nil {
				return err
			}
			err = output.write(cmd.OutOrStdout(), resp, func(out io.Writer) { writeExplanation(out, resp) })
			if err == nil && resp.GetModel() == "" { // not even a route
				return &failure{text: resp.GetRefusal(), try: hints[admin.ReasonModelNotFound]}
			}
			return err
		},
	}
	o.register(cmd)
	output.register(cmd)
	cmd.Flags().StringArrayVarP(&metadata, "metadata", "m", nil, "metadata of the call, `key=value`; may be repeated")
	cmd.Flags().StringVar(&req.ModelVersion, "model-version", "", "model_version in the call's message")
	cmd.Flags().StringVar(&req.Service, "service", "", "full `name` of the gRPC service, for calls that name no model")
	return cmd
}

func parseMetadata(words []string) (map[string]string, error) {
	m := make(map[string]string)
	for _, word := range words {
		key, value, err := cutMetadata(word)
		if err != nil {
			return nil, err
		}
		m[key] = value
	}
	return m, nil
}

// cutMetadata reads one --metadata.
func cutMetadata(word string) (key, value string, err error) {
	key, value, ok := strings.Cut(word, "=")
	if !ok || key == "" {
		return "", "", fmt.Errorf("--metadata: got %q, want key=value", word)
	}
	return key, value, nil
}

func writeExplanation(out io.Writer, resp *adminv1.ExplainResponse) {
	verdict := resp.GetReason()
	if resp.GetVersion() != "" {
		verdict = fmt.Sprintf("version %s (%s)", resp.GetVersion(), verdict)
	}
	fmt.Fprintf(out, "%s, at revision %d\n", strong.Render(visible(verdict, 200)), resp.GetRevision())
	for i, step := range resp.GetSteps() {
		fmt.Fprintf(out, "  %d. %s\n", i+1, visible(step, 500))
	}
	if len(resp.GetCandidates()) == 0 {
		return
	}
	t := newTable("VERSION", ">WEIGHT", ">CHANCE", "ENDPOINTS")
	for _, c := range resp.GetCandidates() {
		t.add(c.GetVersion(), fmt.Sprint(c.GetWeight()), fmt.Sprintf("%.1f %%", 100*c.GetShare()), endpointsSeen(c.GetEndpoints()))
	}
	t.write(out)
}

// endpointsSeen lists endpoints, and which of them fail.
func endpointsSeen(endpoints []*adminv1.Endpoint) string {
	if len(endpoints) == 0 {
		return alarm.Render("no address known")
	}
	const shown = 4
	var parts []string
	for i, e := range endpoints {
		if i == shown {
			parts = append(parts, fmt.Sprintf("+%d", len(endpoints)-shown))
			break
		}
		text := e.GetAddress()
		if !e.GetHealthy() {
			text += alarm.Render(" fails")
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}
