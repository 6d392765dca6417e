package drift

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	driftv1 "sluice/proto/sluice/drift/v1"
)

// missingValues are how files say that there is no value.
var missingValues = []string{"", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"}

// FromCSV learns features from comma-separated rows below a header with the columns' names. A column whose values are
// all numbers, true or false is one of numbers, any other one of categories; empty, NA, NaN, null and None mean that there is no
// value. Only the columns that are named are looked at, or all that have a value if none is.
func FromCSV(r io.Reader, names []string) ([]*driftv1.Feature, error) {
	records, header, err := openCSV(r)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	columns, err := columnsOf(header, names)
	if err != nil {
		return nil, err
	}
	for {
		record, err := records.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err // names the line
		}
		for _, c := range columns {
			c.add(record[c.at])
		}
	}
	var features []*driftv1.Feature
	for _, c := range columns {
		f, ok := c.feature()
		if !ok && len(names) > 0 {
			return nil, fmt.Errorf("column %q: got no value, want at least one", c.name)
		}
		if ok {
			features = append(features, f)
		}
	}
	if len(features) == 0 {
		return nil, fmt.Errorf("got no value in any of %d columns, want at least one", len(columns))
	}
	sortFeatures(features)
	return features, nil
}

// openCSV reads the header. If that has no comma, but semicolons or tabs, these divide columns; a byte order mark is
// skipped.
func openCSV(r io.Reader) (*csv.Reader, []string, error) {
	file := bufio.NewReaderSize(r, 64<<10)
	if mark, _ := file.Peek(3); string(mark) == "\ufeff" {
		if _, err := file.Discard(3); err != nil {
			return nil, nil, err
		}
	}
	start, _ := file.Peek(file.Size())
	line, _, _ := bytes.Cut(start, []byte("\n"))
	records := csv.NewReader(file)
	records.ReuseRecord = true
	for _, comma := range []rune{';', '\t'} {
		if !bytes.ContainsRune(line, ',') && bytes.ContainsRune(line, comma) {
			records.Comma = comma
		}
	}
	header, err := records.Read()
	if err != nil {
		return nil, nil, err
	}
	header = slices.Clone(header)
	for i, name := range header {
		if slices.Contains(header[:i], name) {
			return nil, nil, fmt.Errorf("got column %q twice, want names that tell columns apart", name)
		}
	}
	return records, header, nil
}

// fileColumn gathers a column both ways until a value shows which is right.
type fileColumn struct {
	name       string
	at         int
	text       bool // there was a value that is no number
	numbers    Column
	categories Column
}

func columnsOf(header, names []string) ([]*fileColumn, error) {
	if len(names) == 0 {
		names = header
	}
	if len(names) > MaxFeatures {
		return nil, fmt.Errorf("got %d columns, want at most %d", len(names), MaxFeatures)
	}
	columns := make([]*fileColumn, len(names))
	for i, name := range names {
		at := slices.Index(header, name)
		if at < 0 {
			return nil, fmt.Errorf("header: no column %q among %q", name, header)
		}
		columns[i] = &fileColumn{name: name, at: at}
	}
	return columns, nil
}

func (c *fileColumn) add(field string) {
	field = strings.TrimSpace(field)
	if slices.Contains(missingValues, field) {
		c.numbers.Missing()
		c.categories.Missing()
		return
	}
	c.categories.Category(strings.Clone(field))
	if c.text {
		return
	}
	v, ok := numberOf(field)
	if !ok {
		c.text, c.numbers = true, Column{}
		return
	}
	c.numbers.Number(v)
}

// numberOf reads a number, or a truth value, which is 0 or 1 as in BOOL tensors.
func numberOf(field string) (float64, bool) {
	switch field {
	case "true", "True", "TRUE":
		return 1, true
	case "false", "False", "FALSE":
		return 0, true
	}
	v, err := strconv.ParseFloat(field, 64)
	return v, err == nil || math.IsInf(v, 0)
}

func (c *fileColumn) feature() (*driftv1.Feature, bool) {
	if c.text {
		return c.categories.Feature(c.name)
	}
	return c.numbers.Feature(c.name)
}
