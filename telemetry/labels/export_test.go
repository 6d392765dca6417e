package labels

import "fmt"

// ParseBody and AppendBody read and write what is signed.
func ParseBody(p []byte) (*Identity, error) {
	id := new(Identity)
	return id, id.parse(p)
}

func AppendBody(dst []byte, id *Identity) []byte { return id.append(dst) }

// OfProbabilities is the prediction of rows of probabilities, by a list of classes with this fingerprint.
func OfProbabilities(classes uint32, rows ...[]float64) Prediction {
	p := Prediction{Kind: Class, Classes: classes}
	for _, v := range rows {
		p.add(v)
	}
	return p
}

// MAC is the MAC of a message by a key of 16 bytes.
func MAC(key, message []byte) []byte {
	return newCMAC(key).appendTo(message[:len(message):len(message)], 0)[len(message):]
}

// DetectorOf says what watches a version, by its type.
func DetectorOf(m *Monitor, key Key) string {
	v := m.version(key)
	v.mu.Lock()
	defer v.mu.Unlock()
	return fmt.Sprintf("%T", v.change.detector)
}
