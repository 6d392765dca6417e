package compare

import "sluice/proto/inference/tensor"

// same says of the outputs of two messages that are the same, byte for byte, what
// comparing them would. That is the usual case, and a fraction of the work.
func (c *Comparer) same(rules *Rules, r *Result, all []tensor.Tensor) {
	for i := range all {
		rule := rules.of(all[i].Name)
		if rule.Ignore {
			continue
		}
		t, o := &all[i], r.output(&all[i])
		switch {
		case rule.NaNDiffers && t.Datatype.IsFloat():
			c.tensor(rules, rule, o, t, t) // it may differ from itself
		default:
			o.Elements += t.Len()
			c.sameValues(rules, o, t)
		}
	}
}

// sameValues takes the values of an output that has not changed into its means.
func (c *Comparer) sameValues(rules *Rules, o *Output, t *tensor.Tensor) {
	if t.Datatype == tensor.Bytes {
		return
	}
	for from := 0; from < t.Len(); from += block {
		n := t.Floats(c.floats[0][:], from)
		for _, v := range c.floats[0][:n] {
			if v == v {
				o.sums.add(v, v)
			}
		}
	}
	if !t.Datatype.IsFloat() || len(t.Shape) == 0 {
		return
	}
	if length := int(t.Shape[len(t.Shape)-1]); length >= 2 {
		rows := t.Len() / length
		o.Rows += rows
		if length > rules.topK() {
			o.sums.topK += float64(rows)
			o.sums.topKRows += rows
		}
	}
}
