package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	feedbackv1 "sluice/proto/sluice/feedback/v1"
)

// maxLabelLine bounds a line of a file of labels, in bytes.
const maxLabelLine = 64 << 10

// labelLine is a label of a file, or what is wrong with it.
type labelLine struct {
	label *feedbackv1.Label
	err   error
}

// labelRecord is a label as files have it.
type labelRecord struct {
	PredictionID string     `json:"prediction_id"`
	Row          *uint32    `json:"row"`
	Class        *string    `json:"class"`
	Number       *float64   `json:"number"`
	Reward       *float64   `json:"reward"`
	Time         *time.Time `json:"time"`
}

func (r *labelRecord) label() (*feedbackv1.Label, error) {
	if n := countTrue(r.Class != nil, r.Number != nil, r.Reward != nil); n != 1 {
		return nil, fmt.Errorf("got %d of class, number and reward, want one", n)
	}
	l := &feedbackv1.Label{PredictionId: r.PredictionID, Row: r.Row}
	switch {
	case r.Class != nil:
		l.Truth = &feedbackv1.Label_Class{Class: *r.Class}
	case r.Number != nil:
		l.Truth = &feedbackv1.Label_Number{Number: *r.Number}
	default:
		l.Truth = &feedbackv1.Label_Reward{Reward: *r.Reward}
	}
	if r.Time != nil {
		l.Time = timestamppb.New(*r.Time)
	}
	return l, nil
}

// readJSONLabels reads JSON lines, by the numbers of their lines, until one is wrong.
func readJSONLabels(in io.Reader) iter.Seq2[int, labelLine] {
	return func(yield func(int, labelLine) bool) {
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, maxLabelLine)
		n := 1
		for ; lines.Scan(); n++ {
			text := bytes.TrimSpace(lines.Bytes())
			if len(text) == 0 {
				continue
			}
			l, err := jsonLabel(text)
			if !yield(n, labelLine{l, err}) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(n, labelLine{err: err})
		}
	}
}

func jsonLabel(text []byte) (*feedbackv1.Label, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var r labelRecord
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("%w, want an object with prediction_id, one of class, number and reward, and perhaps row and time", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("got more than one object in a line")
	}
	return r.label()
}

// labelColumns are the columns that a file may have.
var labelColumns = []string{"prediction_id", "row", "class", "number", "reward", "time"}

// readCSVLabels reads a header and rows, by the numbers of their lines, until one is wrong. An empty cell is none.
func readCSVLabels(in io.Reader) iter.Seq2[int, labelLine] {
	return func(yield func(int, labelLine) bool) {
		rows := csv.NewReader(in)
		rows.ReuseRecord = true
		header, err := rows.Read()
		if err == nil {
			header = slices.Clone(header)
			err = checkHeader(header)
		}
		if err != nil {
			yield(1, labelLine{err: fmt.Errorf("header: %w", err)})
			return
		}
		for {
			row, err := rows.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			line, _ := rows.FieldPos(0)
			var l *feedbackv1.Label
			if err == nil {
				l, err = csvLabel(header, row)
			}
			if !yield(line, labelLine{l, err}) || err != nil {
				return
			}
		}
	}
}

func checkHeader(header []string) error {
	seen := make(map[string]bool)
	for _, name := range header {
		if !slices.Contains(labelColumns, name) || seen[name] {
			return fmt.Errorf("got column %q, want each of %v at most once", name, labelColumns)
		}
		seen[name] = true
	}
	if !seen["prediction_id"] {
		return errors.New("got no column prediction_id")
	}
	return nil
}

func csvLabel(header, row []string) (*feedbackv1.Label, error) {
	var r labelRecord
	for i, name := range header {
		cell := row[i]
		if cell == "" {
			continue
		}
		switch name {
		case "prediction_id":
			r.PredictionID = cell
		case "row":
			v, err := strconv.ParseUint(cell, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("row: got %q, want the number of a row of the answer, from 0", visible(cell, 64))
			}
			row := uint32(v)
			r.Row = &row
		case "class":
			r.Class = &cell
		case "time":
			t, err := time.Parse(time.RFC3339, cell)
			if err != nil {
				return nil, fmt.Errorf("time: got %q, want one like 2026-11-26T10:00:00Z", visible(cell, 64))
			}
			r.Time = &t
		default:
			v, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: got %q, want a number", name, visible(cell, 64))
			}
			if name == "number" {
				r.Number = &v
			} else {
				r.Reward = &v
			}
		}
	}
	return r.label()
}
