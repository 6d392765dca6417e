package identify

import "google.golang.org/protobuf/encoding/protowire"

// Depths of nesting that are read: the message, ModelSpec, Int64Value.
const (
	depthMessage = iota
	depthSpec
	depthInt64
	depths
)

// role is what a field means here.
type role uint8

const (
	roleOther role = iota
	roleModel
	roleVersion
	roleLabel
	roleSpec  // a ModelSpec: its fields are read
	roleInt64 // a google.protobuf.Int64Value: its field is read
	roleValue // the number in it
)

// numbers bounds the field numbers that are looked up.
const numbers = 5

// What fields are for, by their number.
var (
	messageRoles = [...][numbers]role{
		ScopeNone:            {},
		ScopeModelName:       {1: roleModel, 2: roleVersion},
		ScopeName:            {1: roleModel, 2: roleVersion},
		ScopeRepositoryModel: {2: roleModel},
		ScopeModelSpec:       {1: roleSpec},
	}
	specRoles  = [numbers]role{1: roleModel, 2: roleInt64, 4: roleLabel}
	int64Roles = [numbers]role{1: roleValue}
)

// roleOf says what a field at a depth is for.
func roleOf(s Scope, depth int, number uint64) role {
	switch {
	case number >= numbers:
		return roleOther
	case depth == depthSpec:
		return specRoles[number]
	case depth == depthInt64:
		return int64Roles[number]
	}
	return messageRoles[s][number]
}

// lastName is the highest number of a top-level field that holds a name.
func lastName(s Scope) uint64 {
	if s == ScopeModelSpec {
		return 1
	}
	return 2
}

// wireOf returns the wire type of a field that is read. Another one would be an
// unknown field to most servers and a name to a careless one, so it is refused.
func wireOf(r role) (protowire.Type, bool) {
	switch r {
	case roleOther:
		return 0, false
	case roleValue:
		return protowire.VarintType, true
	default:
		return protowire.BytesType, true
	}
}

// fieldName is a field as its .proto writes it.
func fieldName(s Scope, r role) string {
	switch {
	case s == ScopeModelSpec && r == roleModel:
		return "model_spec.name"
	case s == ScopeModelSpec && r == roleLabel:
		return "model_spec.version_label"
	case s == ScopeModelSpec && (r == roleInt64 || r == roleValue):
		return "model_spec.version"
	case r == roleSpec:
		return "model_spec"
	case s == ScopeName && r == roleModel:
		return "name"
	case s == ScopeName && r == roleVersion:
		return "version"
	case r == roleVersion:
		return "model_version"
	}
	return "model_name"
}
