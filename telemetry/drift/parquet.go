package drift

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	driftv1 "sluice/proto/sluice/drift/v1"
)

// FromParquet learns features from the columns of a Parquet file of a size in bytes. Numbers and truth values are numbers,
// dates and times those that are stored, and byte strings are categories; null and NaN mean that there is no
// value. Only the columns that are named are looked at, or, if none is, all that can be. Lists and what they hold
// cannot, nor what is nested.
func FromParquet(r io.ReaderAt, size int64, names []string) ([]*driftv1.Feature, error) {
	file, err := parquet.OpenFile(r, size)
	if err != nil {
		return nil, err
	}
	leaves, err := leavesOf(file, names)
	if err != nil {
		return nil, err
	}
	var features []*driftv1.Feature
	for _, leaf := range leaves {
		column, err := readLeaf(file, leaf)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", leaf.name, err)
		}
		f, ok := column.Feature(leaf.name)
		if !ok && len(names) > 0 {
			return nil, fmt.Errorf("column %q: got no value, want at least one", leaf.name)
		}
		if ok {
			features = append(features, f)
		}
	}
	if len(features) == 0 {
		return nil, fmt.Errorf("got no value in any of %d columns, want at least one", len(leaves))
	}
	sortFeatures(features)
	return features, nil
}

// leaf is a column of a Parquet file, and how its values are read.
type leaf struct {
	name  string
	index int
	add   func(*Column, parquet.Value)
}

func leavesOf(file *parquet.File, names []string) ([]leaf, error) {
	var there []string // what can be read
	known := make(map[string]leaf)
	for _, path := range file.Schema().Columns() {
		column, ok := file.Schema().Lookup(path...)
		if !ok || len(path) > 1 || column.MaxRepetitionLevel > 0 {
			continue
		}
		if add := reader(column.Node.Type()); add != nil {
			known[path[0]] = leaf{path[0], column.ColumnIndex, add}
			there = append(there, path[0])
		}
	}
	if len(names) == 0 {
		names = there
	}
	if len(names) == 0 || len(names) > MaxFeatures {
		return nil, fmt.Errorf("got %d columns, want 1 to %d", len(names), MaxFeatures)
	}
	leaves := make([]leaf, len(names))
	for i, name := range names {
		var ok bool
		if leaves[i], ok = known[name]; !ok {
			return nil, fmt.Errorf("no column %q of numbers or strings among %q", name, there)
		}
	}
	return leaves, nil
}

// reader returns how the values of a type are read; nil for those that are neither numbers nor strings.
func reader(t parquet.Type) func(*Column, parquet.Value) {
	number := func(read func(parquet.Value) float64) func(*Column, parquet.Value) {
		return func(c *Column, v parquet.Value) { c.Number(read(v)) }
	}
	scale, unsigned := 1.0, false
	if logical := t.LogicalType(); logical != nil {
		switch l := logical.Value.(type) {
		case *format.DecimalType:
			scale = math.Pow10(int(l.Scale))
		case *format.IntType:
			unsigned = !l.IsSigned
		}
	}
	switch t.Kind() {
	case parquet.Boolean:
		return number(func(v parquet.Value) float64 {
			if v.Boolean() {
				return 1
			}
			return 0
		})
	case parquet.Int32:
		if unsigned {
			return number(func(v parquet.Value) float64 { return float64(v.Uint32()) })
		}
		return number(func(v parquet.Value) float64 { return float64(v.Int32()) / scale })
	case parquet.Int64:
		if unsigned {
			return number(func(v parquet.Value) float64 { return float64(v.Uint64()) })
		}
		return number(func(v parquet.Value) float64 { return float64(v.Int64()) / scale })
	case parquet.Float:
		return number(func(v parquet.Value) float64 { return float64(v.Float()) })
	case parquet.Double:
		return number(parquet.Value.Double)
	case parquet.ByteArray:
		if scale != 1 {
			return nil // a decimal of any number of digits
		}
		return func(c *Column, v parquet.Value) { c.Category(string(v.ByteArray())) }
	}
	return nil
}

// readLeaf gathers the values of one column.
func readLeaf(file *parquet.File, l leaf) (*Column, error) {
	c := new(Column)
	values := make([]parquet.Value, 1024)
	for _, group := range file.RowGroups() {
		pages := group.ColumnChunks()[l.index].Pages()
		for {
			page, err := pages.ReadPage()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, errors.Join(err, pages.Close())
			}
			for read := page.Values(); ; {
				n, err := read.ReadValues(values)
				for _, v := range values[:n] {
					if v.IsNull() {
						c.Missing()
						continue
					}
					l.add(c, v)
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return nil, errors.Join(err, pages.Close())
				}
			}
			parquet.Release(page)
		}
		if err := pages.Close(); err != nil {
			return nil, err
		}
	}
	return c, nil
}
