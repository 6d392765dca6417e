package labels

// ParseBody and AppendBody read and write what is signed.
func ParseBody(p []byte) (*Identity, error) {
	id := new(Identity)
	return id, id.parse(p)
}

func AppendBody(dst []byte, id *Identity) []byte { return id.append(dst) }
