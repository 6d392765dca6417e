package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/proto/sluice/admin/v1"
	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift"
)

// referenceOptions are the flags of sluice drift reference.
type referenceOptions struct {
	client      clientOptions
	from        string
	fromVersion string
	remove      bool
	columns     []string
	data        string
	inOrder     bool
}

func newDriftReferenceCommand() *cobra.Command {
	var o referenceOptions
	cmd := &cobra.Command{
		Use:   "reference MODEL VERSION --from FILE",
		Short: "Say what the data of a version is compared with",
		Long: `Say what the data of a version is compared with from now on.

  --from train.csv       training data: comma-separated rows below a header with the names of
                         columns, or a Parquet file. Features are found by these names, so
                         they have to be those of the route's drift.columns, or of the input
                         tensors
  --from-version v7      the last whole window of another version's traffic
  --remove               nothing; if the route says so, it is learnt anew from samples

With --in-order, the rows of the file are in the order in which they came: how much its
parts differ, by the time of day for example, is no drift then. Of a file that is sorted by
anything else, that would keep alarms from being raised.

The file is read here. Only counts are sent to the gateway, with the names of frequent
categories.`,
		Example: `  sluice drift reference penguins v2 --from train.csv --columns bill_length_mm,bill_depth_mm
  sluice drift reference penguins v2 --from-version v1`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeModel(&o.client),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, drift.Key{Model: args[0], Version: args[1]})
		},
	}
	o.client.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "`file` with comma-separated rows below a header, or Parquet; - for comma-separated standard input")
	f.StringVar(&o.fromVersion, "from-version", "", "`version` whose traffic is taken")
	f.BoolVar(&o.remove, "remove", false, "forget the reference")
	f.StringSliceVar(&o.columns, "columns", nil, "`names` of the columns that are features (default all)")
	f.BoolVar(&o.inOrder, "in-order", false, "rows are in the order in which they came, at least 10,000 of them")
	f.StringVar(&o.data, "data", "", "`name` of the data's version (default the version's provenance.data)")
	return cmd
}

func (o *referenceOptions) run(cmd *cobra.Command, key drift.Key) error {
	if n := countTrue(o.from != "", o.fromVersion != "", o.remove); n != 1 {
		return &usageError{fmt.Errorf("got %d of --from, --from-version and --remove, want one", n), cmd.CommandPath()}
	}
	req := new(adminv1.SetReferenceRequest)
	switch {
	case o.remove:
		req.Source = &adminv1.SetReferenceRequest_Remove{Remove: &adminv1.VersionName{Model: key.Model, Version: key.Version}}
	case o.fromVersion != "":
		req.Source = &adminv1.SetReferenceRequest_Traffic{
			Traffic: &adminv1.FromTraffic{Model: key.Model, Version: key.Version, From: o.fromVersion},
		}
	default:
		doc, err := o.read(cmd, key)
		if err != nil {
			return err
		}
		req.Source = &adminv1.SetReferenceRequest_Reference{Reference: doc}
	}
	resp, err := askToDo(cmd.Context(), &o.client, func(ctx context.Context, c *client) (*adminv1.SetReferenceResponse, error) {
		return c.SetReference(ctx, req)
	})
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if o.remove {
		fmt.Fprintf(out, "%s %s is compared with nothing any more\n", key.Model, key.Version)
		return nil
	}
	fmt.Fprintf(out, "%s %s is compared with %s: %s, in windows of %s\n", key.Model, key.Version,
		resp.GetReference().GetSource(), plural(len(resp.GetFeatures()), "feature"), resp.GetWindow().AsDuration())
	return nil
}

// read makes a reference of a file. Calibrating takes about a second for each column of numbers, so it says what it
// does.
func (o *referenceOptions) read(cmd *cobra.Command, key drift.Key) (*driftv1.Reference, error) {
	features, source, err := o.features(cmd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	doc := &driftv1.Reference{
		Model: key.Model, Version: key.Version, Data: o.data, Source: source, Made: timestamppb.New(time.Now()), Features: features,
	}
	if !o.inOrder {
		for _, f := range features {
			f.Usual = nil
		}
	}
	done := 0
	err = drift.Calibrate(doc, func(feature string) error {
		done++
		fmt.Fprintf(cmd.ErrOrStderr(), "calibrated %s (%d of %d)\n", visible(feature, 60), done, len(features))
		return cmd.Context().Err()
	})
	if errors.Is(err, context.Canceled) {
		return nil, errors.New("interrupted: nothing has been changed")
	}
	return doc, err
}

// parquetMagic is what Parquet files begin with.
const parquetMagic = "PAR1"

// features reads a file, and says which one.
func (o *referenceOptions) features(cmd *cobra.Command) (features []*driftv1.Feature, source string, err error) {
	if o.from == "-" {
		features, err = drift.FromCSV(cmd.InOrStdin(), o.columns)
		return features, "standard input", err
	}
	source = "file " + filepath.Base(o.from)
	file, err := os.Open(o.from)
	if err != nil {
		return nil, source, err
	}
	defer file.Close()
	magic := make([]byte, len(parquetMagic))
	if n, _ := file.ReadAt(magic, 0); string(magic[:n]) != parquetMagic {
		features, err = drift.FromCSV(file, o.columns)
		return features, source, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, source, err
	}
	features, err = drift.FromParquet(file, info.Size(), o.columns)
	return features, source, err
}

func countTrue(all ...bool) int {
	n := 0
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}
