package gateway

import (
	"sluice/gateway/identify"
	"sluice/routing"
)

const numScopes = int(identify.ScopeModelSpec) + 1

// renames are a version's renaming for every scope of a request. They never change.
type renames struct {
	keeping  [numScopes]rename
	clearing [numScopes]rename // and the caller's model_version must not reach the server
}

// rename is a renaming, or why it cannot be done. The zero value renames nothing.
type rename struct {
	rewrite *identify.Rewrite
	err     error
}

// of returns the renaming of requests of a scope.
func (r *renames) of(scope identify.Scope, clearing bool) rename {
	if clearing {
		return r.clearing[scope]
	}
	return r.keeping[scope]
}

// unrenamed is shared by the versions that are called the same on their servers.
var unrenamed = newRenames(routing.Rename{})

func renamesOf(r routing.Rename) *renames {
	if r == (routing.Rename{}) {
		return unrenamed
	}
	return newRenames(r)
}

func newRenames(r routing.Rename) *renames {
	rs := new(renames)
	for i := range numScopes {
		scope, to := identify.Scope(i), identify.Rename{Model: r.Model, Version: r.Version}
		rs.keeping[i] = newRename(scope, to)
		// A model_spec cannot be without a version again. It goes on as it is: a server
		// that does not know it says so itself, and none answers for another one.
		to.ClearVersion = scope != identify.ScopeModelSpec
		rs.clearing[i] = newRename(scope, to)
	}
	return rs
}

func newRename(scope identify.Scope, to identify.Rename) rename {
	rw, err := identify.NewRewrite(scope, to)
	if err != nil {
		return rename{err: err}
	}
	var w identify.Rewriter
	if w.Reset(rw); !w.Changes() {
		return rename{} // and the messages need not be looked at
	}
	return rename{rewrite: rw}
}
